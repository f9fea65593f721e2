"""What a snapshot is made with, and what came of it: the records around `archiver`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from symbiont_datad.restic.lock import Identity
from symbiont_datad.restic.reading import Live
from symbiont_datad.restic.records import Snapshot, Summary, format_time_ns
from symbiont_datad.restic.writer import Added


@dataclass(slots=True)
class Progress:
    """How far a backup is; another thread may look at it while it runs."""

    files: int = 0
    bytes: int = 0
    current: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a snapshot is made.

    `omit`: absolute paths that are left out; `hollow`: directories that are kept without what is in them. `parents` are
    earlier snapshots with their ids, the best first. `stopping` is asked between two files or so. `crew_from`: once so
    many files were read, processes of their own read the small ones (`crew`), which take 0.1 s to start. `spool_from`:
    a directory of so many entries is read in the order of their names, and its nodes are compressed as they come.
    """

    identity: Identity
    program: str = ""
    tags: tuple[str, ...] = ()
    omit: frozenset[bytes] = frozenset()
    hollow: frozenset[bytes] = frozenset()
    parents: tuple[tuple[str, Snapshot], ...] = ()
    live: Live | None = None
    threads: int = 2
    crew_from: int = 2000
    spool_from: int = 80_000
    stopping: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Counts:
    """What became of the files and directories. `bytes` of all files together."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    bytes: int = 0

    @property
    def files(self) -> int:
        """All files."""
        return self.files_new + self.files_changed + self.files_unmodified


@dataclass(frozen=True, slots=True)
class Archived:
    """What `archive` stored. It is to be saved as a snapshot once the writer has finished (`snapshot_of`).

    `unchanged`: nothing below the targets differs from the first parent. `unread` and `torn` name files by their path,
    with the reason: those that are not in the snapshot, and those whose content may be of two times.
    """

    tree: bytes
    unchanged: bool
    counts: Counts
    unread: tuple[tuple[bytes, str], ...]
    torn: tuple[tuple[bytes, str], ...]
    started_ns: int


def summary(archived: Archived, added: Added, ended_ns: int) -> Summary:
    """The summary that a snapshot carries."""
    counts = archived.counts
    return Summary(
        backup_start=format_time_ns(archived.started_ns),
        backup_end=format_time_ns(ended_ns),
        files_new=counts.files_new,
        files_changed=counts.files_changed,
        files_unmodified=counts.files_unmodified,
        dirs_new=counts.dirs_new,
        dirs_changed=counts.dirs_changed,
        dirs_unmodified=counts.dirs_unmodified,
        data_blobs=added.data_blobs,
        tree_blobs=added.tree_blobs,
        data_added=added.plain,
        data_added_packed=added.packed,
        total_files_processed=counts.files,
        total_bytes_processed=counts.bytes,
    )


def snapshot_of(archived: Archived, added: Added, options: Options, paths: Sequence[bytes], ended_ns: int) -> Snapshot:
    """The snapshot to save for what was archived. Its time is the one at which reading began."""
    identity = options.identity
    return Snapshot(
        time=format_time_ns(archived.started_ns),
        tree=archived.tree.hex(),
        paths=[path.decode("utf-8", "backslashreplace") for path in paths],
        parent=options.parents[0][0] if options.parents else "",
        hostname=identity.hostname,
        username=identity.username,
        uid=identity.uid,
        gid=identity.gid,
        tags=list(options.tags),
        program_version=options.program,
        summary=summary(archived, added, ended_ns),
    )
