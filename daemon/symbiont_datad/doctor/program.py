"""The program itself, the Python that runs it, and the libraries that it needs."""

import re
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

import symbiont_datad
from symbiont_datad.doctor.seen import Seen
from symbiont_datad.fsops.limit import memory_limit
from symbiont_datad.fsops.machine import System, system
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Finding, Severity

_NAME = "symbiont-datad"


@dataclass(frozen=True, slots=True)
class Program:
    """The program and what it runs on. `libraries`: versions of what it depends on; None for one that is not there.

    `memory`: the limit in bytes of the control groups that it is in; None where there is none.
    """

    version: str
    python: str
    system: System
    sqlite: str
    encoding: str
    libraries: Mapping[str, str | None]
    memory: int | None


def look() -> Program:
    """Ask this process, and the packages that it can see."""
    return Program(
        symbiont_datad.__version__,
        ".".join(map(str, sys.version_info[:3])),
        system(),
        sqlite3.sqlite_version,
        sys.getfilesystemencoding(),
        {name: _version(name) for name in _needed()},
        memory_limit(),
    )


def _needed() -> list[str]:
    """The packages that ours asks for here; none when it runs from a source that was never installed."""
    try:
        asked = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return []
    plain = [line for line in asked if "extra ==" not in line and "sys_platform" not in line]
    return sorted({re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in plain})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def judge(found: Program) -> Seen:
    """What is wrong: a library that is missing, file names that can't be told."""
    findings = [
        Finding(
            "library_missing",
            "",
            Severity.ERROR,
            f"the package {name} is not installed in this Python",
            "install symbiont-datad again: `pipx reinstall symbiont-datad`, or what it was installed with",
        )
        for name, version in found.libraries.items()
        if version is None
    ]
    if found.encoding.lower().replace("-", "") != "utf8":
        findings.append(
            Finding(
                "encoding",
                "",
                Severity.WARNING,
                f"names of files are read as {found.encoding}, not as UTF-8",
                "set LANG=C.UTF-8 for the service and in the shell",
            )
        )
    limit = f", at most {format_size(found.memory)} of memory" if found.memory is not None else ""
    at = found.system
    return Seen(
        "program",
        f"{_NAME} {found.version}, Python {found.python}, {at.name} {at.release} ({at.processor}){limit}",
        {
            "version": found.version,
            "python": found.python,
            "system": at.name,
            "release": at.release,
            "processor": at.processor,
            "sqlite": found.sqlite,
            "encoding": found.encoding,
            "memory_limit": found.memory,
            "libraries": {name: version or "missing" for name, version in found.libraries.items()},
        },
        tuple(findings),
    )
