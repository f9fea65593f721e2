"""Frozen records that the layers hand up.

Paths in records are relative to the root of the tree, as `str` with surrogate escapes for bytes that are no UTF-8
(PEP 383). `printable` makes one fit for a terminal, JSON or SQLite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

HEALING = ("context_restored", "context_converted", "context_quarantined")
"""The kinds of actions that heal contexts."""


class Severity(StrEnum):
    """How much a finding or an event matters to the person who reads it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DriftKind(StrEnum):
    """The ways in which a directory can differ from the layout."""

    MISSING = "missing"
    OBSTRUCTED = "obstructed"
    """Something that is no directory (a file, a link, a socket) stands where a directory belongs."""
    MODE = "mode"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between the layout and the disk."""

    kind: DriftKind
    path: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Action:
    """One change made (or planned) to the tree. `rule` names what asked for it, `reason` is for people."""

    kind: str
    path: str
    rule: str
    reason: str
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be and was left as it is. `remedy` says what the user can do."""

    kind: str
    path: str
    severity: Severity
    detail: str
    remedy: str = ""


class Outcome(StrEnum):
    """How a run of a job ended."""

    DONE = "done"
    LEFT = "left"
    """Done, but something is left (a corrupt context, a file that could not be removed)."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class JobReport:
    """What one run of a job did. Times are seconds since the epoch.

    `counts` are the job's own figures by name (sizes in bytes). A run in a child process hands up its `actions` only as
    the ledger's rows; `actions_total` and `bytes_total` always tell how many there were. `lost` says that the run died
    and left neither a report of its own nor a row that says how it ended. `exit_code`: what a command ends with when
    the run has failed.
    """

    job: str
    outcome: Outcome
    started_at: float
    duration_s: float
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    message: str = ""
    actions_total: int = 0
    bytes_total: int = 0
    lost: bool = False
    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How many cached files were last used within so many seconds, and not within a smaller number (inf: all others).

    `due_bytes` of them go by the rules of retention at its next run.
    """

    within_s: float
    files: int
    bytes: int
    due_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the daemon's parts are alive, and what a person should know. No part is alive that does not move."""

    alive: bool
    ready: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Legacy:
    """A place of before the tree that was migrated, and how it goes on working. Times in seconds since the epoch.

    `compat` is `none`, `symlink` or `mirror`, or `under way` before the migration is complete. `conflicts`: files that
    a mirror found changed on both sides.
    """

    path: str
    kind: str
    compat: str
    both_ways: bool
    completed_at: float | None
    brought_at: float | None
    files: int
    conflicts: int


def printable(path: str) -> str:
    """A path as text without control characters or lone surrogates: `\\xNN` and `\\n` stand for what can't be shown."""
    if path.isprintable():
        return path
    try:
        text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte, as JSON may have one
        text = path
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def octal(mode: int) -> str:
    """A mode as people write it: `0o755`."""
    return f"0o{mode & 0o7777:o}"
