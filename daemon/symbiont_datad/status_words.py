"""The sentences that say how things are, the same on the terminal and on the page. Pure."""

import math
from collections.abc import Iterator, Sequence

from symbiont_datad.ledger_schema import Run
from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.report import CacheUse, Legacy, printable
from symbiont_datad.retention.caching import freed_by_age, freed_by_size
from symbiont_datad.retention.forecast import OUTSIDE, Forecast
from symbiont_datad.status import Status

_DAY_S = 86_400.0

REPAIRS = ("directory_recreated", "permissions_restored", "owner_restored", "obstruction_quarantined")
"""The kinds of actions by which the guard puts the tree right."""


def ago(now: float, at: float) -> str:
    """How long a time is past: `3d 4h ago`."""
    return f"{format_duration(max(now - at, 0.0))} ago"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2,000 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def kept(found: Status, now: float) -> str:
    """Who keeps the tree, and for how long."""
    live = found.live
    if found.daemon_pid is None:
        since = f", not running for {format_duration(max(now - live.written_at, 0.0))}" if live else ""
        return f"{found.root} is not kept{since}"
    by = f"process {found.daemon_pid}" if found.daemon_pid else "a process of somebody else"
    running = f" for {format_duration(max(now - live.started_at, 0.0))}" if live and live.running else ""
    return f"{found.root} is kept by {by}{running}"


def growth(bytes_per_s: float | None) -> str:
    """A trend as what a day brings: `+1.2 MiB`, `±0`; a dash when it is not known yet."""
    if bytes_per_s is None:
        return "–"
    a_day = bytes_per_s * _DAY_S
    return "±0" if abs(a_day) < 1 else f"{'+' if a_day > 0 else '-'}{format_size(abs(a_day))}"


def free(found: Status) -> str:
    """What the file system has left; empty when that was never measured."""
    space = found.space
    if space is None:
        return ""
    share = 100 * space.free_bytes / (space.total_bytes or 1)
    inodes = f", {100 * space.free_inodes / space.total_inodes:.0f} % of the inodes" if space.total_inodes else ""
    return f"free: {format_size(space.free_bytes)} of {format_size(space.total_bytes)} ({share:.0f} %){inodes}"


def endings(found: Status) -> Iterator[tuple[Forecast, str]]:
    """When bytes and inodes run out, with the sentence that says so."""
    for one, what in ((found.full, "full"), (found.out_of_inodes, "out of inodes")):
        if one is not None:
            place = "outside the data directory" if one.mostly == OUTSIDE else printable(one.mostly) or "the root"
            over = about(one.over_s).removeprefix("1 ")
            text = f"{what} in {about(one.full_in_s)} at the rate of the last {over}"
            yield one, f"{text}: {100 * one.share:.0f} % of it is {place}"


def about(seconds: float) -> str:
    """A duration in its largest unit alone: `9 days`."""
    for unit, name in ((_DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= unit:
            return counted(round(seconds / unit), name)
    return "less than a minute"


def snapshots(found: Status, now: float) -> Iterator[str]:
    """How many snapshots there are, how old, how large, and whether they were checked and tried."""
    rows = found.snapshots
    if not rows:
        made = found.good_runs.get("backup")
        yield f"snapshots: the last backup was {ago(now, made.started_at)}" if made else "snapshots: none yet"
    else:
        newest = {row.tag: row.at for row in rows}
        each = ", ".join(f"last {tag or 'other'} {ago(now, at)}" for tag, at in sorted(newest.items()))
        size = repository_bytes(found)
        room = f" in {format_size(size)}" if size is not None else ""
        last = next((row for row in reversed(rows) if row.tag == "backup"), rows[-1])
        yield f"snapshots: {len(rows):,}{room}; {each}; oldest {ago(now, rows[0].at)}"
        yield f"  the last {last.tag or 'one'} holds {counted(last.files, 'file')}, {format_size(last.bytes)}"
    checked = verified(found)
    if checked is not None:
        yield f"  {checking(checked, now)}"
    elif rows:
        yield "  never verified yet"


def repository_bytes(found: Status) -> int | None:
    """The size of the repository by its last check; None when there was none."""
    run = found.good_runs.get("verify")
    return run.counts.get("bytes") if run else None


def verified(found: Status) -> Run | None:
    """The last check of the repository that came to its end; None when there was none."""
    return found.good_runs.get("verify")


def checking(run: Run, now: float) -> str:
    """What the last check of the repository found."""
    problems, drilled = run.counts.get("problems", 0), run.counts.get("drilled", 0)
    result = "sound" if not problems else counted(problems, "problem")
    read = format_size(run.counts.get("bytes_read", 0))
    drill = f"; restore drill: {counted(drilled, 'file')} restored and compared" if drilled else "; no restore drill"
    return f"verified {ago(now, run.started_at)}: {result}, {read} of the data read{drill}"


def contexts(found: Status) -> str:
    """How the agents' contexts are; empty before the first sweep."""
    run = found.good_runs.get("sweep")
    if run is None or "contexts" not in run.counts:
        return ""
    damaged = run.counts.get("damaged", 0)
    broken = f"{damaged:,} damaged" if damaged else "none damaged"
    mended = healed(found)
    told = f", {mended:,} healed in the last week" if mended else ""
    sessions = f"; {counted(run.counts['sessions'], 'session')}" if run.counts.get("sessions") else ""
    return f"contexts: {run.counts['contexts']:,}, {broken}{told}{sessions}"


def healed(found: Status) -> int:
    """How many contexts got a good version back within a week."""
    return sum(row.kind in ("context_restored", "context_converted") and row.state == "done" for row in found.healed)


def guard(found: Status) -> str:
    """What the guard repaired within a day, and what it holds back from."""
    repairs = sum(found.actions_today.get(kind, 0) for kind in REPAIRS)
    off = found.live.backing_off if found.live and found.daemon_pid is not None else ()
    back = f"; backs off from {', '.join(path or 'the root' for path in off)}" if off else ""
    return f"guard: {counted(repairs, 'repair') if repairs else 'no repairs'} in the last day{back}"


def versions(found: Status) -> str:
    """What runs, and what is installed."""
    live = found.live
    running = live.version if live and live.version and found.daemon_pid is not None else ""
    other = f", the daemon that runs {running}" if running and running != found.version else ""
    return f"version: {found.version}{other}; repository: restic's format 2; contexts: of the runtime 1.19.0"


def undo(found: Status) -> Iterator[tuple[str, float, int, int]]:
    """The runs that can be undone, the newest first: stamp, until when, files and bytes."""
    runs: dict[str, tuple[str, float, int, int]] = {}
    for cell in found.cells:
        if cell.undoable and cell.until is not None:
            _, until, files, size = runs.get(cell.run, (cell.run, cell.until, 0, 0))
            runs[cell.run] = printable(cell.run), max(until, cell.until), files + cell.files, size + cell.bytes
    return reversed(runs.values())


def cache(use: Sequence[CacheUse]) -> Iterator[str]:
    """How the prompt cache is used, and what a limit would free."""
    files, size, due = (sum(getattr(one, name) for one in use) for name in ("files", "bytes", "due_bytes"))
    if not files:
        return
    ages, freed, so_far = [], [], 0
    for one in use:
        so_far += one.files
        if math.isfinite(one.within_s):
            ages.append(f"{spell_duration(one.within_s)} {100 * so_far / files:.0f} %")
            freed.append(f"{spell_duration(one.within_s)} {format_size(freed_by_age(use, one.within_s))}")
    yield f"cache: {files:,} files, {format_size(size)}; used within {', '.join(ages)}"
    half = f"max_bytes {format_size(size // 2)} {format_size(freed_by_size(use, size // 2))}"
    yield f"  would free: max_age {', '.join(freed)}; {half}"
    if due:
        yield f"  {format_size(due)} go at the next run of retention"


def today(found: Status) -> str:
    """What was done within a day; empty when nothing was."""
    done = sorted(found.actions_today.items())
    told = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in done)
    return f"in the last day: {told}" if told else ""


def legacy(one: Legacy, now: float) -> str:
    """How a place of before the tree goes on working."""
    how = _COMPAT.get(one.compat, one.compat)
    since = f" since {format_duration(max(now - one.completed_at, 0.0))}" if one.completed_at else ""
    last = f", last brought {ago(now, one.brought_at)}" if one.brought_at else ""
    conflicts = f", {one.conflicts:,} conflicts" if one.conflicts else ""
    return f"{how}{since}{last}{conflicts}"


_COMPAT = {"none": "migrated", "symlink": "a link to the tree", "mirror": "mirrored"}
