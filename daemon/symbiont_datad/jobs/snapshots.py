"""What snapshots there are, of which host, and where they have the data directory."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from symbiont_datad.errors import DatadError
from symbiont_datad.events import emit
from symbiont_datad.jobs.context import Progress
from symbiont_datad.ledger import LedgerError
from symbiont_datad.ledger_schema import SnapshotRow
from symbiont_datad.report import printable
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Missing, RepositoryError
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository

if TYPE_CHECKING:
    from symbiont_datad.jobs.context import JobContext

Named = tuple[str, Snapshot]

LEGACY = "legacy"
"""The tag of snapshots of places of before the tree. No policy forgets them, and `latest` is none of them."""

_WHOLE = "backup"  # the tag of snapshots of everything


def readable_snapshots(
    repository: Repository, progress: Progress | None = None
) -> tuple[list[Named], list[tuple[str, str]]]:
    """The snapshots with their ids, the oldest first; and those that can't be read, with the reason.

    Raises RepositoryError when the repository itself can't be read.
    """
    shown = progress or Progress()
    shown.begin("read snapshots")
    found: list[Named] = []
    unread: list[tuple[str, str]] = []
    names = [name for name, _ in repository.backend.list(FileKind.SNAPSHOT)]
    shown.total_files = len(names)
    for name in names:
        shown.files += 1
        try:
            snapshot = repository.snapshot(name)
            snapshot.at  # noqa: B018  # a time that can't be read raises here
        except Missing:
            continue  # forgotten meanwhile
        except Damaged as error:
            unread.append((name, str(error)))
        except ValueError:
            unread.append((name, f"snapshots/{name}: its time can't be read"))
        else:
            found.append((name, snapshot))
    found.sort(key=lambda one: (one[1].at, one[0]))
    return found, unread


def note(context: "JobContext", repository: Repository, snapshots: Iterable[Named]) -> None:
    """Leave in the ledger which snapshots there are, for who wants to know it without the repository's password.

    Those of `snapshots` that are gone by now are left out; what others have noted meanwhile stays.
    """
    try:
        there = {name for name, _ in repository.backend.list(FileKind.SNAPSHOT)}
        context.ledger.note_snapshots([_row(name, one) for name, one in snapshots if name in there], there)
    except LedgerError as error:
        emit("ledger_failed", reason=str(error))
    except RepositoryError:
        pass  # whoever looks next notes it


def _row(name: str, snapshot: Snapshot) -> SnapshotRow:
    summary = snapshot.summary
    files, size, added = (
        (summary.total_files_processed, summary.total_bytes_processed, summary.data_added_packed)
        if summary
        else (0, 0, 0)
    )
    tag = printable(snapshot.tags[0]) if snapshot.tags else ""
    return SnapshotRow(name, snapshot.at.timestamp(), tag, printable(snapshot.hostname), files, size, added)


def of_this_host(snapshots: list[Named], hostname: str) -> list[Named]:
    """The snapshots that this host made; all of them when it made none, as on the machine that replaces a lost one.

    Those of legacy places count only where there are no others.
    """
    snapshots = [one for one in snapshots if LEGACY not in one[1].tags] or snapshots
    return [one for one in snapshots if one[1].hostname == hostname] or snapshots


def root_in(snapshot: Snapshot, root: str) -> str:
    """Where a snapshot has the data directory, whose place is `root` now.

    The same place where any of it is in the snapshot; else the first path of a backup (those after it are roots beside
    the directory), or what the paths of another snapshot have in common.
    """
    if holds(snapshot, root):
        return root
    absolute = [path for path in snapshot.paths if path.startswith("/")]
    if absolute and _WHOLE in snapshot.tags:
        return absolute[0]
    return os.path.commonpath(absolute) if absolute else "/"


def holds(snapshot: Snapshot, root: str) -> bool:
    """Whether any of what is below a directory, at its place now, is in a snapshot."""
    return any(f"{path}/".startswith(f"{root}/") for path in snapshot.paths)


def place_in(snapshots: Sequence[Snapshot], root: str) -> str | None:
    """Where these snapshots, the oldest first, have the directory whose place is `root` now; None if there are none.

    The same place if any of them has it there, else that of the newest.
    """
    if any(holds(snapshot, root) for snapshot in snapshots):
        return root
    return root_in(snapshots[-1], root) if snapshots else None


def located(root: str, extra_roots: Sequence[str], path: str) -> tuple[str, str]:
    """A path as a user types it, as the root that it is in (the data directory, or one beside it) and what is below.

    Raises DatadError for what is in none of them.
    """
    absolute = os.path.normpath(os.path.join(root, os.path.expanduser(path)))
    for extra in extra_roots:
        if f"{absolute}/".startswith(f"{extra}/"):
            return extra, absolute[len(extra) + 1 :]
    return root, relative_to(root, path)


def relative_to(root: str, path: str) -> str:
    """A path as a user types it, relative to the data directory: relative to that already, or absolute and inside it.

    Empty for the data directory itself. Raises DatadError for what is not in it.
    """
    absolute = os.path.normpath(os.path.join(root, os.path.expanduser(path)))
    if absolute == root:
        return ""
    for base in (root, os.path.realpath(root)):
        if absolute.startswith(f"{base}/"):
            return absolute[len(base) + 1 :]
    raise DatadError(f"{printable(path)}: is not in the data directory {printable(root)}")
