"""An archive for a bug report: what was seen, the settings, the last events and log lines, and the tree as counts.

No content of any file, no secret, and of names only those that are declared; see `scrub`.
"""

import io
import json
import os
import re
import socket
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from secrets import token_bytes
from typing import Any

import symbiont_datad
from symbiont_datad.doctor.contents import Contents, contents, quarantined, told
from symbiont_datad.doctor.journal import last_lines
from symbiont_datad.doctor.scrub import Scrub, scrub_for
from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import DatadError
from symbiont_datad.events import EVENTS
from symbiont_datad.jobs import JOBS
from symbiont_datad.jobs.context import JobSettings, Progress
from symbiont_datad.layout import Layout
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Drift, Finding, printable
from symbiont_datad.settings import Loaded, leaves
from symbiont_datad.settings_file import plain

_EVENTS, _LINES = 300, 300
_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSW|KEY|CREDENTIAL", re.IGNORECASE)
_LARGEST_SECRET = 64 << 10

HEAD = """\
A bundle of symbiont-datad {version}, made at {at}, to be attached to a bug report.

{files}

What is not in it: what stands in any file of the tree or of the repository; passwords, keys and tokens; the names of
agents, files, users and machines. A name is written as `~` and six digits, the same name with the same digits in this
bundle, and other ones in the next. Directories and rules that the settings declare are named.

Look through it before you give it away: `tar -xf` it, it is all text.
"""

_ABOUT = {
    "checks.json": "what `symbiont-datad check` saw and found",
    "settings.json": "every setting, its value and where that came from; secrets are masked",
    "runs.json": "the newest run of each job, and what the last runs have left to look at",
    "events.jsonl": f"the last {_EVENTS} changes to the tree, from the ledger",
    "log.jsonl": f"the last {_LINES} lines of the daemon's log, from the journal",
    "tree.json": "how many files of which size and mode lie in each declared directory",
    "problems.txt": "why the settings can't be used",
}


def bundle(
    file: Path,
    loaded: Loaded,
    settings: JobSettings,
    ledger: Ledger,
    seen: tuple[Seen, ...],
    drifts: Iterable[Drift],
    findings: Iterable[Finding],
    environ: Mapping[str, str],
    progress: Progress,
) -> tuple[str, ...]:
    """Write the archive `file` (`….tar.gz`, or `….tar.zst`), mode 0600; hand back what is in it.

    Raises DatadError where something has that name, or it can't be written.
    """
    refuse(file)
    progress.begin("tree")

    def count(size: int) -> None:
        progress.files += 1
        progress.bytes += size

    found = contents(settings.layout, count)
    scrub = _scrub(loaded, settings.layout, found, environ)
    members = dict(_members(loaded, settings, ledger, seen, drifts, findings, found, scrub, environ))
    _write(file, members)
    return tuple(members)


def bundle_of_problems(
    file: Path, problems: str, seen: tuple[Seen, ...], environ: Mapping[str, str]
) -> tuple[str, ...]:
    """The same where the settings can't be read: what they say, and the program. Raises as `bundle` does."""
    refuse(file)
    scrub = scrub_for(token_bytes(16), _secret_variables(environ), _people(environ), (), _places(environ))
    members = {"checks.json": _json({"checks": scrub.value([_seen(one) for one in seen])})}
    members["problems.txt"] = f"{scrub.text(problems)}\n".encode()
    _write(file, members)
    return tuple(members)


def refuse(file: Path) -> None:
    """Raise DatadError for a name that no archive of ours can have, or that something has."""
    if not file.name.endswith((".tar.gz", ".tgz", ".tar.zst")):
        raise DatadError(f"--bundle {printable(str(file))}: the name must end in .tar.gz or .tar.zst")
    if os.path.lexists(file):
        raise DatadError(f"--bundle {printable(str(file))}: is there already, and is not replaced")


# What is in it


def _members(
    loaded: Loaded,
    settings: JobSettings,
    ledger: Ledger,
    seen: tuple[Seen, ...],
    drifts: Iterable[Drift],
    findings: Iterable[Finding],
    found: Contents,
    scrub: Scrub,
    environ: Mapping[str, str],
) -> Iterator[tuple[str, bytes]]:
    yield (
        "checks.json",
        _json(
            {
                "checks": scrub.value([_seen(one) for one in seen]),
                "drifts": [{**scrub.value(asdict(one)), "path": scrub.path(one.path)} for one in drifts],
                "findings": [_finding(one, scrub) for one in findings],
            }
        ),
    )
    # A setting's value is not the tree's: names of files are no names there.
    plainly = replace(scrub, names=frozenset(_people(environ, settings.layout.root)), long_names=())
    yield "settings.json", _json({"settings": plainly.value(_settings(loaded))})
    yield (
        "tree.json",
        _json({"unread": found.unread, "quarantined": quarantined(settings.layout), "directories": list(told(found))}),
    )
    try:
        runs = {job: scrub.value(asdict(run)) for job, run in ledger.last_runs().items()}
        left = [_finding(one, scrub) for one, _ in ledger.findings()]
        yield "runs.json", _json({"runs": runs, "findings": left})
        rows = [
            {**scrub.value(asdict(row)), "path": scrub.path(row.path), "reason": _reason(row.reason, row.path, scrub)}
            for row in ledger.actions(limit=_EVENTS)
        ]
        yield "events.jsonl", _lines(rows)
    except LedgerError as error:
        yield "runs.json", _json({"problem": scrub.text(str(error))})
    lines = [_line(one, scrub) for one in last_lines(_LINES)]
    if lines:
        yield "log.jsonl", _lines(lines)


def _settings(loaded: Loaded) -> list[dict[str, Any]]:
    return [
        {"name": leaf.name, "value": plain(leaf.value, leaf.field), "origin": loaded.origins[leaf.name]}
        for leaf in leaves(loaded.settings)
    ]


def _seen(one: Seen) -> dict[str, Any]:
    return {
        "probe": one.probe,
        "told": one.told,
        "facts": dict(one.facts),
        "findings": [asdict(f) for f in one.findings],
    }


def _finding(one: Finding, scrub: Scrub) -> dict[str, Any]:
    path = scrub.text(one.path) if one.path.startswith("/") else scrub.path(one.path)
    return {
        **asdict(one),
        "path": path,
        "detail": _reason(one.detail, one.path, scrub),
        "remedy": scrub.text(one.remedy),
    }


def _reason(text: str, path: str, scrub: Scrub) -> str:
    """A sentence about a path: what that is called may be gone from the tree by now."""
    for part in sorted(path.split("/"), key=len, reverse=True):
        masked = scrub.path(part)
        if masked != part:
            text = text.replace(part, masked)
    return scrub.text(text)


def _line(one: Mapping[str, Any], scrub: Scrub) -> dict[str, Any]:
    path = one.get("path")
    kept = {name: scrub.value(value) for name, value in one.items()}
    if isinstance(path, str):
        kept["message"] = _reason(str(one.get("message")), path, scrub)
        if not path.startswith("/"):
            kept["path"] = scrub.path(path)
    return kept


# What is taken out of it


def _scrub(loaded: Loaded, layout: Layout, found: Contents, environ: Mapping[str, str]) -> Scrub:
    declared = {part for path in layout.by_path for part in path.split("/") if part}
    known = {*declared, *JOBS, *EVENTS, "guard", ".quarantine", "security", "symbiont", "manifest"}
    return scrub_for(
        token_bytes(16),
        [*_secret_settings(loaded), *_secret_variables(environ)],
        [*found.names, *_people(environ, layout.root)],
        known,
        _places(environ),
    )


def _secret_settings(loaded: Loaded) -> Iterator[str]:
    """Secrets that stand in the settings, and those in the files that they name."""
    settings = loaded.settings
    for secret in (settings.backup.password, settings.encryption.key):
        if secret is not None:
            yield secret.get_secret_value()
    for file in (settings.backup.password_file, settings.encryption.key_file, settings.http.token_file):
        if file is not None:
            with suppress(OSError):
                yield from _lines_of(file)


def _lines_of(file: Path) -> list[str]:
    """The lines of a small file; a FIFO is not waited for."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        return [line.strip() for line in stream.read(_LARGEST_SECRET).decode("utf-8", "replace").splitlines()]


def _secret_variables(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if _SECRET_NAMES.search(name) and not value.startswith("/"):
            yield value


def _places(environ: Mapping[str, str]) -> dict[str, str]:
    """The home, which says who it is."""
    home = environ.get("HOME", "").rstrip("/")
    return {home: "~"} if len(home) > 1 and home != "/root" else {}


def _people(environ: Mapping[str, str], *paths: str) -> Iterator[str]:
    """What the machine and its users are called, as far as it could stand anywhere."""
    yield socket.gethostname()
    yield from (environ[name] for name in ("USER", "LOGNAME", "SUDO_USER") if environ.get(name, "root") != "root")
    for path in paths:
        match path.split("/"):
            case ["", "home" | "Users", name, *_]:
                yield name


# The archive


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps({'schema': 1, **content}, indent=2, ensure_ascii=False, default=str)}\n".encode(
        "utf-8", "backslashreplace"
    )


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False, default=str)}\n" for row in rows).encode(
        "utf-8", "backslashreplace"
    )


def _write(file: Path, members: Mapping[str, bytes]) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    files = "\n".join(f"  {name:<14} {_ABOUT[name]}" for name in members)
    head = HEAD.format(version=symbiont_datad.__version__, at=at, files=files).encode()
    plain_tar = io.BytesIO()
    folder = file.name.partition(".tar")[0].removesuffix(".tgz")
    with tarfile.open(fileobj=plain_tar, mode="w") as tar:
        for name, content in {"README.txt": head, **members}.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mode, info.mtime = len(content), 0o600, int(time.time())
            tar.addfile(info, io.BytesIO(content))
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            out.write(_packed(plain_tar.getvalue(), file.name))
    except OSError as error:
        raise DatadError(f"--bundle {printable(str(file))}: can't be written: {error.strerror or error}") from None


def _packed(content: bytes, name: str) -> bytes:
    if name.endswith(".zst"):
        import zstandard

        return zstandard.compress(content, 9)
    import gzip

    return gzip.compress(content, mtime=0)
