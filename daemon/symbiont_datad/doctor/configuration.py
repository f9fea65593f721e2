"""Which settings are in force, from which files, and whether the secrets among them are safe and can be used."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import SettingsError
from symbiont_datad.jobs.secrets import Secrets, check_secrets
from symbiont_datad.report import Finding, Severity, octal, printable
from symbiont_datad.settings import Loaded
from symbiont_datad.settings_places import SYSTEM_FILE, home_directory, usual_files

_SECRETS = ("backup.password", "encryption.key")
"""Settings that are secrets themselves, and don't only name a file."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings' sources. `passed_over`: files that would be read if `file` were not there. `owner` and `mode`: of
    the file. `in_file`: the secrets that stand in it. `secrets`: why those that are asked for can't be used; else
    empty. `changed`: by name, where each setting that is not the default came from.
    """

    file: str | None
    passed_over: tuple[str, ...]
    owner: int
    mode: int
    in_file: tuple[str, ...]
    secrets: str
    changed: Mapping[str, str]


def look(loaded: Loaded, secrets: Secrets, environ: Mapping[str, str]) -> Configuration:
    """Look at the files."""
    owner, mode = 0, 0o600
    if loaded.file is not None:
        with suppress(OSError):
            found = os.stat(loaded.file)
            owner, mode = found.st_uid, stat.S_IMODE(found.st_mode)
    problem = ""
    try:
        check_secrets(secrets)
    except SettingsError as error:
        problem = str(error)
    return Configuration(
        file=str(loaded.file) if loaded.file is not None else None,
        passed_over=_passed_over(loaded.file, usual_files(home_directory(environ), SYSTEM_FILE)),
        owner=owner,
        mode=mode,
        in_file=tuple(name for name in _SECRETS if loaded.origins.get(name) == str(loaded.file)),
        secrets=problem,
        changed={name: origin for name, origin in loaded.origins.items() if origin != "default"},
    )


def _passed_over(file: Path | None, usual: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(str(one) for one in usual if file is not None and one != file and one.is_file())


def judge(found: Configuration, me: int) -> Seen:
    """What is wrong with them; `me` is the user who asks."""
    findings = []
    file = found.file or ""
    if found.secrets:
        remedy = "put the key or the password there; see docs/keys.md"
        findings.append(Finding("secret_unusable", "", Severity.ERROR, found.secrets, remedy))
    if found.mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"others can change it (mode {octal(found.mode)}), and so what is kept and removed"
        findings.append(Finding("settings_open", file, Severity.ERROR, detail, f"chmod go-w {printable(file)}"))
    if found.in_file and found.mode & (stat.S_IRWXG | stat.S_IRWXO):
        detail = f"others can read it (mode {octal(found.mode)}), and it holds {' and '.join(found.in_file)}"
        remedy = f"chmod 600 {printable(file)}"
        findings.append(Finding("secret_readable", file, Severity.ERROR, detail, remedy))
    if file and found.owner not in (0, me):
        detail = f"it belongs to uid {found.owner}, who is neither root nor the one who asks (uid {me})"
        severity = Severity.WARNING if me else Severity.INFO
        findings.append(Finding("settings_of_another", file, severity, detail, "as root: chown it to who should say"))
    findings += [
        Finding("settings_passed_over", other, Severity.INFO, f"it is not read, because {printable(file)} is there",
                "one of the two can go")
        for other in found.passed_over
    ]  # fmt: skip
    where = printable(file) if file else "no file"
    number = len(found.changed)
    return Seen(
        "settings",
        f"{where}; {number} setting{'s are' if number != 1 else ' is'} not the default",
        {"file": found.file, "changed": dict(found.changed), "passed_over": found.passed_over},
        tuple(findings),
    )
