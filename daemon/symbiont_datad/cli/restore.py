"""`restore`: get files back from a snapshot."""

import errno
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.jobs import JsonLines, stoppable
from symbiont_datad.cli.progress import watched
from symbiont_datad.cli.snapshots import record
from symbiont_datad.errors import DatadError, ExitCode, SettingsError
from symbiont_datad.errors import Interrupted as Stopped
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import format_duration, format_size
from symbiont_datad.report import Action, JobReport, Outcome, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from symbiont_datad.jobs.context import JobSettings, Progress
    from symbiont_datad.jobs.in_place import Swapped
    from symbiont_datad.jobs.restore import Wanted
    from symbiont_datad.jobs.stopping import Stop
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.restic.lock import HeldLock
    from symbiont_datad.restic.repository import Repository
    from symbiont_datad.restic.restorer import Counts


def restore(
    ctx: typer.Context,
    snapshot: Annotated[
        str,
        typer.Argument(
            metavar="SNAPSHOT", help="Its id, how that begins, or `latest`: the newest that has the paths.",
            show_default=False,
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Only these files and directories, relative to the data directory or absolute.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--target", metavar="DIR", help="Restore into this directory; it may be new.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Put it back where it was. What is there now moves to quarantine.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="For `latest`: of this host.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="For `latest`: with this tag (backup, autosave, templates).")
    ] = None,
    no_lock: Annotated[
        bool, typer.Option("--no-lock", help="Write no lock: for a repository that can only be read.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be restored, and write nothing.")] = False,
    as_json: JsonLines = False,
) -> None:  # fmt: skip
    """Get files back, into a directory of your choice or in place. Nothing that is there is overwritten or deleted.

    Exit code 3 when something could not be restored; each such file is named.
    """
    from symbiont_datad.fsops.mount import refuse_unmounted
    from symbiont_datad.jobs.context import job_settings
    from symbiont_datad.jobs.runner import open_ahead
    from symbiont_datad.jobs.snapshots import located

    if (target is None) == (not in_place):
        raise SettingsError("where to? give one of --target DIR and --in-place")
    show.quiet_log()
    settings = job_settings(invocation(ctx).load().settings)
    found = [located(settings.layout.root, settings.vectors.extra_roots, path) for path in paths or ()]
    roots = {one for one, _ in found} or {settings.layout.root}
    if len(roots) > 1:
        raise SettingsError(f"paths in {' and '.join(map(printable, sorted(roots)))}: restore them one after the other")
    (root,) = roots
    beside = root != settings.layout.root
    if beside and in_place:
        raise SettingsError(f"{printable(root)}: is not in the data directory; --target restores from it")
    if target is not None:
        target = Path(os.path.abspath(os.path.expanduser(target)))
        _refuse_inside(target, settings)
    else:
        refuse_unmounted(settings.layout.root, settings.require_mount)
    open_ahead(settings.repository)
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.jobs.restore import choose

    repository = opened(settings.repository)
    with told(), ExitStack() as held:
        stop = held.enter_context(stoppable())
        lock = None if no_lock or dry_run else held.enter_context(_locked(repository, stop))
        wanted = choose(repository, root, snapshot, [path for _, path in found], host, tag or (), beside=beside)
        if not wanted.whole and not wanted.paths:
            parts = ", ".join(printable(os.path.relpath(path, wanted.root)) for path in wanted.snapshot.paths)
            show.note(f"symbiont-datad: snapshot {wanted.id[:8]} has only {parts}; --tag backup is for all there is")
        if dry_run:
            _list(repository, settings, wanted, as_json, in_place=in_place)
        else:
            _restore(repository, settings, wanted, target, as_json, stop, lock)


@contextmanager
def _locked(repository: "Repository", stop: "Stop") -> "Iterator[HeldLock]":
    """Hold a lock that begins at once: what is read from then on is what its hash says, or a failure."""
    from symbiont_datad.jobs.repository import locked
    from symbiont_datad.restic.errors import Interrupted, RepositoryError, RepositoryLocked

    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(repository, eager=True, stopping=stop.is_set))
        except (RepositoryLocked, Interrupted):
            raise
        except RepositoryError as error:
            raise DatadError(f"{printable(str(error))}; --no-lock restores without a lock") from None
        yield lock


def _refuse_inside(target: Path, settings: "JobSettings") -> None:
    real = os.path.realpath(target)
    for place, advice in (
        (settings.layout.root, "; --in-place puts things back there"),
        (settings.repository.location, ""),
    ):
        if f"{real}/".startswith(f"{os.path.realpath(place)}/"):
            raise DatadError(f"--target {printable(str(target))}: must not be in {printable(place)}{advice}")


def _list(
    repository: "Repository", settings: "JobSettings", wanted: "Wanted", as_json: bool, *, in_place: bool
) -> None:
    from symbiont_datad.jobs.in_place import units
    from symbiont_datad.jobs.restore import entries

    listed, size = [], 0
    for path, node in entries(repository, wanted):
        listed.append({"path": printable(os.fsdecode(path)), "type": node.type, "bytes": node.size})
        size += node.size
        if not as_json:
            slash = "/" if node.type == "dir" else ""
            show.line(f"{format_size(node.size) if node.type == 'file' else '':>10}  {listed[-1]['path']}{slash}")
    swapped = [printable(unit.path) for unit in units(repository, wanted, settings.layout)] if in_place else []
    if as_json:
        content = {"snapshot": record(wanted.id, wanted.snapshot), "dry_run": True, "in_place": in_place}
        show.last_line(content | {"entries": listed, "bytes": size, "swapped": [{"path": path} for path in swapped]})
        return
    show.line(f"would restore {len(listed):,} entries, {format_size(size)}, from {_named(wanted)}")
    for unit in swapped:
        show.line(f"would swap {unit}")


def _restore(
    repository: "Repository",
    settings: "JobSettings",
    wanted: "Wanted",
    target: Path | None,
    as_json: bool,
    stop: "Stop",
    lock: "HeldLock | None",
) -> None:
    from symbiont_datad.jobs.context import Progress
    from symbiont_datad.jobs.restore import restore_to
    from symbiont_datad.restic.errors import Interrupted

    def stopping() -> bool:
        if lock is not None and lock.refused is not None:
            raise lock.refused
        return stop.is_set()

    progress = Progress("restore")
    started = time.monotonic()
    with watched(progress, as_json):
        try:
            if target is None:
                done = _in_place(repository, settings, wanted, progress, stopping)
            else:
                restored = restore_to(repository, wanted, target, progress, stopping)
                done = _Done(restored.counts, restored.failed)
            if done.failed and lock is not None:
                lock.confirm()  # somebody who prunes may be to blame
        except Interrupted:
            raise Stopped(f"interrupted; {_LEFT[target is None]}") from None
        except OSError as error:
            at = settings.layout.root if target is None else str(target)
            raise DatadError(f"{printable(at)}: {error.strerror or error}; {_LEFT[target is None]}") from None
    _tell(wanted, done, target, time.monotonic() - started, as_json)


_LEFT = {True: "nothing was changed", False: "not everything was restored"}
"""What a restore that failed leaves, in place and elsewhere. (Once it swaps, it tells of that itself.)"""


@dataclass(frozen=True, slots=True)
class _Done:
    """What was restored; in place: what was swapped, and whether the runtime has read of it."""

    counts: "Counts"
    failed: tuple[tuple[bytes, str], ...] = ()
    swapped: "tuple[Swapped, ...]" = ()
    runtime: bool = False


def _in_place(
    repository: "Repository",
    settings: "JobSettings",
    wanted: "Wanted",
    progress: "Progress",
    stopping: "Callable[[], bool]",
) -> _Done:
    from symbiont_datad.fsops.lock import hold
    from symbiont_datad.jobs.in_place import restore_in_place
    from symbiont_datad.jobs.runner import open_ledger

    started = time.time()
    agents, root = settings.layout.agents, settings.layout.root
    if not os.path.isdir(root):
        raise DatadError(f"{printable(root)}: is not there; `symbiont-datad init` makes it")
    with hold(settings.lock_path("restore"), "another restore is running"), open_ledger(settings) as ledger:
        counts, swapped = restore_in_place(repository, wanted, settings.layout, progress, started, stopping)
        with suppress(LedgerError):  # it is done; that it can't be written down changes nothing
            _write_down(ledger, wanted, swapped, counts, started)
    runtime = any(f"{one.path}/".startswith(f"{agents}/") or agents.startswith(f"{one.path}/") for one in swapped)
    return _Done(counts, (), tuple(swapped), runtime)


def _write_down(
    ledger: "Ledger", wanted: "Wanted", swapped: "Sequence[Swapped]", counts: "Counts", started: float
) -> None:
    reason = f"from snapshot {wanted.id[:8]}"
    actions = tuple(
        Action("restored", one.path, "restore", f"{reason}; before: {one.quarantined or 'nothing'}") for one in swapped
    )
    run = ledger.begin_run("restore", started)
    ledger.record(actions, started, run)
    took = time.time() - started
    figures = {"files": counts.files, "bytes": counts.bytes}
    ledger.finish_run(
        run, JobReport("restore", Outcome.DONE, started, took, actions, counts=figures, actions_total=len(actions))
    )


def _tell(wanted: "Wanted", done: _Done, target: Path | None, took: float, as_json: bool) -> None:
    counts = done.counts
    failed = [(printable(os.fsdecode(path)), reason) for path, reason in done.failed]
    swapped = [(printable(one.path), one.quarantined) for one in done.swapped]
    if as_json:
        show.last_line(
            {
                "snapshot": record(wanted.id, wanted.snapshot),
                "dry_run": False,
                "target": None if target is None else str(target),
                "in_place": target is None,
                "files": counts.files,
                "directories": counts.directories,
                "links": counts.links,
                "others": counts.others,
                "bytes": counts.bytes,
                "duration_s": round(took, 3),
                "swapped": [{"path": path, "quarantined": where} for path, where in swapped],
                "failed": [{"path": path, "reason": reason} for path, reason in failed],
            }
        )
    else:
        for path, quarantined in swapped:
            before = f"what was there is {quarantined}" if quarantined else "nothing was there"
            show.line(f"{path}: restored; {before}")
        where = "in place" if target is None else f"to {printable(str(target))}"
        show.line(
            f"restored {counts.files:,} files, {format_size(counts.bytes)}, from {_named(wanted)} "
            f"{where} in {format_duration(took)}"
        )
        if done.runtime:
            show.line("The runtime serves contexts from memory until its next start, and may write over these before.")
    for path, reason in failed:
        why = "something is there already" if reason == os.strerror(errno.EEXIST) else printable(reason)
        show.note(f"symbiont-datad: not restored: {path}: {why}")
    if failed:
        raise typer.Exit(int(ExitCode.LEFT))


def _named(wanted: "Wanted") -> str:
    at = show.short_time(wanted.snapshot.at.timestamp())
    return f"{wanted.id[:8]} ({printable(wanted.snapshot.hostname)}, {at})"
