"""Targets: what users set."""

import os
from contextlib import suppress
from pathlib import Path
from random import Random

from symbiont_datad.errors import SettingsError
from symbiont_datad.jobs.secrets import identity_in, password_in
from symbiont_datad.quantities import parse_duration, parse_mode, parse_share, parse_size
from symbiont_datad.restic.credentials import CLOUDS, settings_for
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.subset import subset
from symbiont_datad.service.endpoint import listening
from symbiont_datad.settings import load
from symbiont_datad.settings_file import example_toml
from symbiont_datad.settings_places import Unsure, daemon_dir
from symbiont_datad.timetable import Timetable
from tests.fuzz.engine import Target
from tests.fuzz.pieces import JSON, scratch


def _toml(data: bytes) -> None:
    with scratch() as folder:
        file = folder / "datad.toml"
        file.write_bytes(data)
        with suppress(Unsure):
            daemon_dir(file, None, {"HOME": str(folder)})
        settings = load(file, {}, {"HOME": str(folder)}).settings
        load(_written(folder / "again.toml", example_toml(settings)), {}, {"HOME": str(folder)})


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def _toml_seeds() -> list[bytes]:
    with scratch() as folder:
        whole = example_toml(load(None, {}, {"HOME": str(folder)}).settings).encode()
    lines = whole.replace(b"\n# ", b"\n").replace(b"\n#", b"\n").splitlines()
    return [
        whole[:8000], b"\n".join(lines[:60]), b"auto_save_interval = 60\n[backup]\nschedule = '15 3 * * *'\n",
        b'[permissions]\n"logs/audit" = 0o750\n[logs]\npatterns = ["**/*.log"]\nrotate_at = "50MiB"\n',
        b'[[layout.directory]]\npath = "reports"\nmax_age = "7d"\n[retention.cache]\nmax_bytes = "1GiB"\n',
        b'[limits]\nhigh_water = "10%"\nlow_water = "15%"\n[http]\nlisten = "[::]:80"\n[retention.x]\ndirectory="logs"',
    ]  # fmt: skip


def _variables(data: bytes) -> None:
    """Lines `NAME=VALUE`; what no environment can hold is left out."""
    pairs = (line.partition(b"=") for line in data.replace(b"\0", b"").split(b"\n"))
    environ = {f"SYMBIONT_DATAD_{os.fsdecode(name)}": os.fsdecode(value) for name, equal, value in pairs if equal}
    environ = {name: value for name, value in environ.items() if "CONFIG" not in name.upper()}
    with scratch() as folder:
        given = {"HOME": str(folder), **environ}
        with suppress(Unsure):
            daemon_dir(None, None, given)
        load(None, {}, given)


_CRON_AT = (0.0, 1.8e9, 1.774e9)


def _cron(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with scratch() as folder:
        schedule = load(None, {"backup.schedule": text}, {"HOME": str(folder)}).settings.backup.schedule
    from datetime import UTC, datetime

    table = Timetable("a", None, schedule) if isinstance(schedule, str) else Timetable("a", schedule)
    for at in _CRON_AT:
        now = datetime.fromtimestamp(at, UTC)
        assert table.next_run(now) > now


def _quantities(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_size, parse_duration, parse_mode, parse_share):
        with suppress(ValueError):
            parse(text)
    with suppress(ValueError):
        subset(text, Random(1))({f"{n:064x}": n for n in range(20)})


def _location(data: bytes) -> None:
    """Where a repository lies, on the first line; below it a file of credentials."""
    location, _, credentials = data.partition(b"\n")
    with scratch() as folder:
        environ = {"HOME": str(folder)}
        file = folder / ".aws/credentials"
        file.parent.mkdir()
        file.write_bytes(credentials)
        with suppress(RepositoryError):
            settings_for(CLOUDS["s3"], environ)
        backend_at(location.decode("utf-8", "surrogateescape"), environ)


def _secrets(data: bytes) -> None:
    """A password file, a key file and a file with a token."""
    with scratch() as folder:
        file = folder / "secret"
        file.write_bytes(data)
        file.chmod(0o600)
        for read in (password_in, identity_in):
            with suppress(SettingsError):
                assert read(file, "x")
        given = {"http.listen": "127.0.0.1:0", "http.token_file": str(file)}
        found = listening(load(None, given, {"HOME": str(folder)}).settings)
        assert found is not None
        assert found.token == data.decode().strip()


TARGETS = (
    Target(
        "settings-file", _toml, _toml_seeds, (SettingsError,),
        (b"=", b"[", b"]", b"[[", b"'''", b'"""', b"0o7", b"1979-05-27", b"inf", b"{}", b".", b"#"),
    ),
    Target(
        "settings-variables",
        _variables,
        lambda: [
            b'AUTO_SAVE_INTERVAL=60\nLOGS__PATTERNS=["**/*.log"]\nROOT_DATA_DIR=/data',
            b"BACKUP__KEEP_DAILY=7\nbackup__schedule=1h\nLIMITS__HIGH_WATER=5%\nENCRYPTION__KEY=AGE-SECRET-KEY-1X",
            b'PERMISSIONS={"logs/audit": "0750"}\nLAYOUT__DIRECTORY=[{"path": "reports"}]\nDIR_PERMISSIONS=755',
        ],
        (SettingsError,),
        (*JSON, b"__", b"RETENTION__X__MAX_AGE=", b"\n", b"=", b"~", b".."),
    ),
    Target(
        "cron", _cron,
        lambda: [b"15 3 * * *", b"*/7 1-5/2 1,15 jan-jun sun-tue", b"0 0 29 2 *", b"24h", b"1d12h"],
        (SettingsError,), (b"*", b"/", b"-", b",", b" ", b"0", b"7", b"31", b"feb", b"sat"),
    ),
    Target(
        "quantities", _quantities, lambda: [b"50MiB", b"7d12h", b"0o755", b"10%", b"1.5GB", b"500ms"], (),
        (b"e308", b"%", b"KiB", b"w", b".", b"-", b"_", b"\xd9\xa3", b"1/256", b"G"),
    ),
    Target(
        "repository-location", _location,
        lambda: [
            b"s3://bucket/a/b\n[default]\naws_access_key_id = A\naws_secret_access_key = b\nregion = x\n",
            b"gs://bucket", b"az://container/x", b"/backups\n[default]\n[other]\nregion=%(x)s\n", b"./a:b", b"sftp:x",
        ],
        (RepositoryError,), (b"://", b"s3://", b"@", b"/", b"..", b"?", b"#", b"[default]", b"=", b"\n ", b":", b"%"),
    ),
    Target(
        "secret-files", _secrets,
        lambda: [
            b"a password\n", b"\xff\xfea\0b\0", b"\xef\xbb\xbfx", b"AGE-SECRET-KEY-1QQ\n", b"0123456789abcdef0123\n",
        ],
        (SettingsError,), (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"AGE-SECRET-KEY-1", b"# x\n", b" ", b"\xc2\xa0"),
    ),
)  # fmt: skip
