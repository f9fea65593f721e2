"""The snapshot repository: whether it is there, opens, is free of left locks, and has room for the next backup."""

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import DatadError, NoRepository, SettingsError, WrongPassword
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.repository import MARK, identity, opened, place, told
from symbiont_datad.jobs.snapshots import of_this_host, readable_snapshots
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.quantities import Share, format_duration, format_size
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import is_stale
from symbiont_datad.restic.repository import Repository

PATIENCE_S = 20.0
"""For the whole repository: a store that is away is not waited for as long as a backup would."""
_NONE = Share(percent=0)
_LAST = 10
"""Backups from which it is told how much the next one may add."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it can't be used: the name of a finding, and the message of the error."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Storage:
    """What was seen of the repository. Sizes in bytes, times in seconds since the epoch.

    `known`: the ledger knows of a repository here. `locks` are all there are, `stale` those whose holder is gone,
    `unreadable` those that can't be read. `newest`: when the newest snapshot of this host was made; `unread`: how many
    snapshots can't be read. `free` and `total`: of its file system; None for an object store. `expected`: the most
    that one of the last backups has added; of the first, what the tree holds; None where nothing tells.
    """

    location: str
    known: bool = False
    failure: Failure | None = None
    locks: int = 0
    stale: int = 0
    unreadable: int = 0
    snapshots: int = 0
    newest: float | None = None
    unread: int = 0
    free: int | None = None
    total: int | None = None
    expected: int | None = None
    min_free: Share = _NONE


def look(settings: JobSettings, ledger: Ledger, patience_s: float = PATIENCE_S) -> Storage:
    """Open it, and look at its locks and snapshots. Nothing is written there; no lock is taken."""
    known, size = _remembered(settings, ledger)
    found = Storage(settings.repository.location, known=known, min_free=settings.snapshots.min_free)
    answer = _within(patience_s, lambda: _opened(settings, found))
    if answer is None:
        late = Failure("repository_slow", f"it has not answered within {format_duration(patience_s)}")
        answer = replace(found, failure=late)
    if answer.expected is None:
        answer = replace(answer, expected=size)
    return answer


def _remembered(settings: JobSettings, ledger: Ledger) -> tuple[bool, int | None]:
    """Whether there was a repository here, and how many bytes the tree held."""
    try:
        known = bool(ledger.marks(MARK).get(f"{MARK}/{settings.repository.location}"))
        usage, _ = ledger.usage()
    except LedgerError:
        return False, None
    return known, sum(point.bytes for point in usage) if usage else None


def _within(seconds: float, work: Callable[[], Storage]) -> Storage | None:
    """The result of some work; None when there is none after so long. The thread is then left to itself."""
    answers: queue.SimpleQueue[Storage] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(work()), name="repository", daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return None


def _opened(settings: JobSettings, found: Storage) -> Storage:
    try:
        backend = place(settings.repository)
        if isinstance(backend, LocalBackend):
            found = _with_space(found, Path(backend.location))
        repository = opened(settings.repository)
        with told():
            return _with_snapshots(_with_locks(found, repository), repository)
    except NoRepository as error:
        return replace(found, failure=Failure("no_repository", str(error)))
    except WrongPassword as error:
        return replace(found, failure=Failure("wrong_password", str(error)))
    except SettingsError as error:
        return replace(found, failure=Failure("repository_closed", str(error)))
    except (DatadError, OSError) as error:
        return replace(found, failure=Failure("repository_unusable", str(error)))
    except Exception as error:  # a probe never keeps the others from being told
        return replace(found, failure=Failure("repository_unusable", repr(error)))


def _with_space(found: Storage, at: Path) -> Storage:
    while not at.is_dir() and at != at.parent:
        at = at.parent
    with suppress(OSError):
        space = os.statvfs(at)
        return replace(found, free=space.f_bavail * space.f_frsize, total=space.f_blocks * space.f_frsize)
    return found


def _with_locks(found: Storage, repository: Repository) -> Storage:
    me, now = identity(), time.time()
    locks = [lock for _, lock in repository.lock_files()]
    return replace(
        found,
        locks=len(locks),
        stale=sum(lock is not None and is_stale(lock, me, now) for lock in locks),
        unreadable=sum(lock is None for lock in locks),
    )


def _with_snapshots(found: Storage, repository: Repository) -> Storage:
    snapshots, unread = readable_snapshots(repository)
    ours = of_this_host(snapshots, identity().hostname)
    added = [one.summary.data_added_packed for _, one in ours[-_LAST:] if one.summary is not None]
    return replace(
        found,
        snapshots=len(snapshots),
        newest=max((one.at.timestamp() for _, one in ours), default=None),
        unread=len(unread),
        expected=max(added, default=None),
    )


def judge(found: Storage, now: float) -> Seen:
    """What is wrong with it, or will be at the next backup."""
    findings = []
    path = found.location
    if found.failure is not None:
        findings += _failed(found, found.failure)
    if found.stale:
        detail = f"{found.stale} of {found.locks} locks are of processes that are gone"
        remedy = "they are in nobody's way but a prune's; `symbiont-datad repository unlock` removes them"
        findings.append(Finding("stale_locks", path, Severity.WARNING, detail, remedy))
    if found.unreadable:
        detail = f"{found.unreadable} lock files can't be read"
        remedy = "when nobody is at work there: `symbiont-datad repository unlock --all`"
        findings.append(Finding("unreadable_locks", path, Severity.WARNING, detail, remedy))
    if found.unread:
        detail = f"{found.unread} snapshots can't be read"
        findings.append(Finding("snapshots_unread", path, Severity.ERROR, detail, "`symbiont-datad verify` says more"))
    if found.newest is not None and found.newest > now + 120:
        detail = f"its newest snapshot is {format_duration(found.newest - now)} ahead of this machine's clock"
        findings.append(Finding("snapshot_ahead", path, Severity.WARNING, detail, "set the clock of who is wrong"))
    findings += _room(found)
    return Seen("repository", _line(found, now), _facts(found), tuple(findings))


def _failed(found: Storage, failure: Failure) -> list[Finding]:
    if failure.kind == "no_repository" and not found.known:
        return []  # the first backup makes it
    remedies = {
        "no_repository": "mount its disk, or set backup.repository right; `repository init` makes a new, empty one",
        "wrong_password": "set backup.password_file, or encryption.key_file, to what it was made with",
        "repository_closed": "see docs/keys.md",
        "repository_slow": "look at the network, or at the disk that it is on",
    }
    detail = failure.detail
    if failure.kind == "no_repository":
        detail = "the repository that was there is gone"
    remedy = remedies.get(failure.kind, "`symbiont-datad verify` looks closer once it can be reached")
    return [Finding(failure.kind, found.location, Severity.ERROR, detail, remedy)]


def _room(found: Storage) -> list[Finding]:
    if found.free is None or found.total is None:
        return []
    least, expected = found.min_free.of(found.total), found.expected or 0
    if found.free < least:
        detail = (
            f"only {format_size(found.free)} are free, and no backup is made with less than backup.min_free = "
            f"{found.min_free} ({format_size(least)})"
        )
        severity = Severity.ERROR
    elif found.free - expected < least:
        detail = (
            f"{format_size(found.free)} are free; the next backup may take {format_size(expected)}, and the one "
            f"after it would be refused (backup.min_free = {found.min_free})"
        )
        severity = Severity.WARNING
    else:
        return []
    remedy = "`symbiont-datad prune` may free some; else keep fewer snapshots, or use a larger disk"
    return [Finding("no_room_for_backup", found.location, severity, detail, remedy)]


def _line(found: Storage, now: float) -> str:
    shown = printable(found.location)
    if found.failure is not None:
        soon = found.failure.kind == "no_repository" and not found.known
        return f"{shown}: not made yet; the first backup does it" if soon else f"{shown}: can't be used"
    newest = f", the newest {format_duration(max(0.0, now - found.newest))} old" if found.newest is not None else ""
    locks = f", {found.locks} locks" if found.locks else ""
    free = f"; free: {format_size(found.free)}" if found.free is not None else ""
    return f"{shown}: opens, {found.snapshots:,} snapshots{newest}{locks}{free}"


def _facts(found: Storage) -> dict[str, str | int | float | bool | None]:
    return {
        "location": found.location,
        "opens": found.failure is None,
        "known": found.known,
        "snapshots": found.snapshots,
        "newest_at": found.newest,
        "locks": found.locks,
        "stale_locks": found.stale,
        "free_bytes": found.free,
        "total_bytes": found.total,
        "expected_bytes": found.expected,
    }
