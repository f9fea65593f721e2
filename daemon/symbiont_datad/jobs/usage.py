"""Usage: what the tree holds, by category, and what its file system has left.

The modes of files, the counts of executed prompts and the use of the cache share the walk. What the ledger need not
remember any longer goes here too, because this job comes often and always.
"""

from collections import Counter
from collections.abc import Callable, Container

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import QUARANTINE, Tree
from symbiont_datad.fsops.space import space_of
from symbiont_datad.fsops.walk import walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.executions import ExecutionCounter
from symbiont_datad.jobs.permissions import FileKeeper
from symbiont_datad.layout import Category, Layout
from symbiont_datad.ledger_schema import SpacePoint, UsagePoint
from symbiont_datad.report import Finding, JobReport, Outcome, Severity
from symbiont_datad.retention.caching import CacheTally
from symbiont_datad.retention.rules import Rule

_QUARANTINE = "quarantine"
_PLACES = 64
"""Directories of the layout whose usage is recorded, each by itself; a user can declare any number."""


def usage(context: JobContext) -> JobReport:
    """Measure the tree, and put right the modes and owners of files where the settings declare any.

    Sizes are what the files say (`st_size`), in bytes. A file with several names counts once for each. Counts: `files`,
    `bytes`; `checked` is what the declared modes and owners were compared with; `executions` are the records of prompts
    that were read, `executions_pending` those that wait for the next run.
    """
    layout = context.layout
    findings: list[Finding] = []
    files: Counter[str] = Counter(dict.fromkeys(Category, 0))
    sizes: Counter[str] = Counter()
    places = layout.places[:_PLACES]
    below_files: Counter[str] = Counter(dict.fromkeys(places, 0))
    below_sizes: Counter[str] = Counter()
    keeper = FileKeeper(context)
    executions, cache = ExecutionCounter(context), CacheTally(_cache_rule(layout), context.now)
    cached = f"{layout.path_of(Category.PROMPTS, 'cache')}/"

    def unread(path: str, error: OSError) -> None:
        detail = error.strerror or str(error)
        findings.append(Finding("unread", path, Severity.WARNING, detail, "let the daemon's user read it"))

    folder, category, place = None, Category.OTHER, ""
    progress = context.progress
    progress.begin("count")
    for entry in walk(layout.tree, on_error=unread):
        if context.stopping():
            break
        if (parent := entry.path.rpartition("/")[0]) != folder:
            folder, category = parent, layout.category_of(parent or entry.path)
            place = _place_of(parent, below_files)
        files[category] += 1
        sizes[category] += entry.size
        progress.files += 1
        progress.bytes += entry.size
        below_files[place] += 1
        below_sizes[place] += entry.size
        if keeper.keeps:
            keeper.look_at(entry)
        if category is Category.PROMPTS:
            executions.look_at(entry)
            if entry.path.startswith(cached):
                cache.add(entry)
    for root in context.settings.vectors.extra_roots:
        files[root], sizes[root] = _beside(root, unread)
    for entry in walk(layout.tree, QUARANTINE, on_error=unread):
        files[_QUARANTINE] += 1
        sizes[_QUARANTINE] += entry.size
    keeper.finish()
    findings += keeper.findings
    interrupted = context.stopping()
    if not interrupted:  # else not all records were seen
        executions.finish()
    if not context.dry_run and not interrupted:
        context.ledger.replace_cache_use(cache.use(), context.now)
        points = [UsagePoint(context.now, name, files[name], sizes[name]) for name in files]
        below = [UsagePoint(context.now, name, below_files[name], below_sizes[name]) for name in below_files]
        context.ledger.record_usage(points, _space(context), below)
        context.ledger.trim(context.settings.ledger, context.now)
        context.ledger.keep_reserve()
    left = any(finding.severity is not Severity.INFO for finding in findings)
    return JobReport(
        "usage",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(keeper.actions),
        tuple(findings),
        {
            "files": files.total(),
            "bytes": sizes.total(),
            "checked": keeper.checked,
            "executions": executions.counted,
            "executions_pending": executions.pending,
        },
        actions_total=len(keeper.actions),
        bytes_total=0,
    )


def _beside(root: str, unread: Callable[[str, OSError], None]) -> tuple[int, int]:
    """The files and bytes in a root beside the tree."""
    files = size = 0

    def unread_there(path: str, error: OSError) -> None:
        unread(f"{root}/{path}".rstrip("/"), error)

    try:
        for entry in walk(Tree(root), on_error=unread_there):
            files += 1
            size += entry.size
    except (OSError, UnsafePath) as error:
        unread_there("", error if isinstance(error, OSError) else OSError(str(error)))
    return files, size


def _cache_rule(layout: Layout) -> Rule | None:
    return next((rule for rule in layout.rules if rule.name == "cache"), None)


def _place_of(folder: str, places: Container[str]) -> str:
    """The nearest of the places that a directory is or lies in; `""` is the root."""
    while folder and folder not in places:
        folder = folder.rpartition("/")[0]
    return folder


def _space(context: JobContext) -> SpacePoint:
    """What the file system of the tree has left for those who are not root."""
    found, _ = space_of(context.layout.tree)
    return SpacePoint(
        context.now,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail,
        found.f_files,
    )
