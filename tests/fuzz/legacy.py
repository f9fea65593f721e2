"""Targets: what a migration reads, and the settings that it rewrites."""

import os
import tomllib
from contextlib import suppress
from pathlib import Path

from symbiont_datad.fsops.copy import CHUNK
from symbiont_datad.migrate.config import old_values, rewritten, settings_of, with_settings
from symbiont_datad.migrate.content import Question, look, of_data
from symbiont_datad.migrate.detect import detect, looks_like, resolved
from symbiont_datad.migrate.inventory import is_own, list_source
from symbiont_datad.migrate.legacy import SETTINGS_FILES, holds_key, is_secret_name
from symbiont_datad.migrate.target import Target as Place
from tests.fuzz.agents import context_seeds
from tests.fuzz.engine import Target
from tests.fuzz.pieces import JSON, scratch

_TOML = [
    b'# mine\n[context]\nstorage_path = "./data/contexts" # here\nbackup_count = 5\nenable_compression = false\n',
    b'[storage]\ncontext_path = "a"\nbackup_path = \'b\'\n[vector_db]\ndata_path = "c"\n[logging]\nlog_file_path="d"\n',
    b'[context.persistence]\nstorage_path = "a"\nroot_data_dir = "b"\n[[tools]]\nname = "x"\n[[tools]]\nname = "y"\n',
    b'persistence_config = {storage_path = "a", auto_save_interval = 60}\nfile_persistence.storage_path = "b"\n',
    b'symbiont.context_storage_path = """a"""\n\n[persistence]\nstorage_path="~/x"\ndir_permissions = 0o750\n',
]
_TOML_WORDS = (
    b"[context]\n", b"[context.persistence]\n", b"context.persistence.", b"storage_path = ", b'"x"', b"'x'", b"=", b"{",
    b"[[context]]\n", b"}", b",", b".", b"#", b'"""', b"root_data_dir = ", b"1979-05-27", b"inf", b"\n", b"[", b"]",
    b"[persistence]\n", b"\r\n", b"\\u0000", b'"\\n"', b"0o7", b"backup_count = ", b"[backup]\n", b"backup.a = 7",
)  # fmt: skip
_PLACE = Place("/home/ada/.symbiont/data", Path("/home/ada/.symbiont/datad"))


def _rewritten(data: bytes) -> None:
    """The user's own files: what comes out is TOML again, and says the same but for what was changed."""
    text = data.decode("utf-8")
    with suppress(ValueError, RecursionError):
        before = tomllib.loads(text)
        olds = list(old_values("f", before))
        new = settings_of(olds, {"backup_count": 3, "dir_permissions": 0o755}, before, has_key=False)
        changed = rewritten("f", text, _PLACE, "/srv", "/home/ada")
        assert not changed.changes or _again(changed.after) != before
        assert changed.changes or _again(changed.after) == before
        added = {name: value for name, value in new.values.items() if name not in before}
        now = _again(with_settings("f", text, added).after)
        assert before == {name: value for name, value in now.items() if name not in added}
        assert added.keys() <= now.keys()
    with suppress(ValueError):  # what tomllib refuses
        rewritten("f", text, _PLACE, "/srv", None)


def _again(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise AssertionError(f"no TOML any more: {error}") from None


def _file(data: bytes) -> None:
    """One file of a legacy place, in memory and on the disk."""
    of_data(data, Question(judged=False, compared=True))
    question = Question(judged=True, fields=True, compared=True)
    found, _ = of_data(data, question)
    assert found.digest
    with scratch() as folder:
        path = folder / "f"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert look(fd, len(data), question)[:4] == found[:4] or len(data) > CHUNK
        finally:
            os.close(fd)
    holds_key(data[:4096])


def _directory(data: bytes) -> None:
    """A working directory: its first part is a settings file, the next one `.env`, and the rest names of files."""
    settings, _, rest = data.partition(b"\1")
    environment, _, names = rest.partition(b"\1")
    with scratch() as folder:
        home, work = folder / "home", folder / "work"
        (home / ".symbiont").mkdir(parents=True)
        old = work / "data/contexts"
        old.mkdir(parents=True)
        for name in names.split(b"\n")[:30]:
            if name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) < 200:
                (old / os.fsdecode(name)).write_bytes(b"{}")
                is_secret_name(os.fsdecode(name))
                is_own(os.fsdecode(name))
        looks_like(str(old), os.listdir(old))
        (work / SETTINGS_FILES[0]).write_bytes(settings)
        (home / ".symbiont/.env").write_bytes(environment)
        place = Place(str(home / ".symbiont/data"), home / ".symbiont/datad")
        found = detect(place, str(work), str(home), {"CONTEXT_STORAGE_PATH": "data/contexts"})
        for source in found.sources:
            assert source.path.startswith("/")
            if source.path.startswith(f"{folder}/"):
                list_source(source, source.path)
        for mention in found.mentions:
            resolved(mention.value, str(work), None)


TARGETS = (
    Target("rewritten-settings", _rewritten, lambda: _TOML, (UnicodeDecodeError,), _TOML_WORDS),
    Target("legacy-file", _file, context_seeds, (), (*JSON, b"AGE-SECRET-KEY-1", b"-----BEGIN PRIVATE KEY", b"\n#")),
    Target(
        "legacy-directory",
        _directory,
        lambda: [
            one + b"\1CONTEXT_STORAGE_PATH='./x' # y\nexport BACKUP_DIRECTORY=\"data/contexts\"\n\1"
            b"0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11.json.gz\na.backup.17.json\nid_rsa\n.datad-x.tmp"
            for one in _TOML[:3]
        ],
        (),
        (
            *_TOML_WORDS,
            b"\1",
            b".json",
            b".backup.",
            b".gz",
            b"../data/contexts",
            b"~/.symbiont/data",
            b"file://",
            b"/",
        ),
    ),
)
