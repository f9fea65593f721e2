"""The names of the runtime's state files, and what they say.

By Symbiont 1.19.0 (`crates/runtime/src/context/manager.rs`). What is sealed with age (`.age`) is our own
`ContextStore`'s; the runtime neither lists nor reads it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a file among the contexts is, by its name."""

    CONTEXT = "context"
    BACKUP = "backup"
    ARCHIVE = "archive"
    LEFTOVER = "leftover"
    """A temporary file that a crash left."""


@dataclass(frozen=True, slots=True)
class StateName:
    """What a name says. `seconds` since the epoch is when a backup or an archive was made; 0 for others.

    `gzip` and `sealed` are what a context's name promises of its content.
    """

    role: Role
    agent: str
    seconds: int = 0
    gzip: bool = False
    sealed: bool = False


_BACKUP = re.compile(r"(?s)(.+?)(\.json)?\.backup\.([0-9]{1,19})\.json(\.age)?")
_ARCHIVE = re.compile(r"(?s)archives/([^/]+)/archive_([0-9]{1,19})\.json")
_CONTEXT = re.compile(r"(?s)(.+?)\.json(\.gz)?(\.age)?")


def name_of(path: str) -> StateName | None:
    """What the name of a file says, given its path relative to the directory of contexts; None: nothing that we know.

    An agent's id is a UUID by the runtime's own making, but any stem will do.
    """
    if "/" in path:
        archive = _ARCHIVE.fullmatch(path)
        if archive:
            return StateName(Role.ARCHIVE, archive[1], int(archive[2]))
        return StateName(Role.LEFTOVER, "") if path.endswith(".tmp") else None
    backup = _BACKUP.fullmatch(path) if ".backup." in path else None
    if backup:
        return StateName(Role.BACKUP, backup[1], int(backup[3]), bool(backup[2]), bool(backup[4]))
    context = _CONTEXT.fullmatch(path)
    if context:
        return StateName(Role.CONTEXT, context[1], 0, bool(context[2]), bool(context[3]))
    return StateName(Role.LEFTOVER, "") if path.endswith(".tmp") else None


def context_name(agent: str, *, gzip: bool, sealed: bool = False) -> str:
    """The name of an agent's context."""
    return f"{agent}.json{'.gz' if gzip else ''}{'.age' if sealed else ''}"


def backup_name(agent: str, seconds: int, *, gzip: bool, sealed: bool = False) -> str:
    """The name of a backup of a context with that extension, made at a time in whole seconds since the epoch.

    The runtime puts `backup.{seconds}.json` in the place of what follows the last dot, so that of `.json.gz` only the
    `.gz` goes.
    """
    return f"{agent}{'.json' if gzip else ''}.backup.{seconds}.json{'.age' if sealed else ''}"
