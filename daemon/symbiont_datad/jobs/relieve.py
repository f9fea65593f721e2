"""Making room when the disk is nearly full: caches first, state never, up to the low water mark and not more."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.rotated import rotated
from symbiont_datad.fsops.cells import cells, extent
from symbiont_datad.fsops.space import flush, space_of
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.emptying import empty_cells
from symbiont_datad.jobs.listing import Keeping, Listing, list_for
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.retiring import held_by_snapshot, take_away
from symbiont_datad.jobs.tally import Tally
from symbiont_datad.layout import Category, Layout
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Action, Finding, JobReport, Severity
from symbiont_datad.retention import pressure
from symbiont_datad.retention.patterns import matcher
from symbiont_datad.retention.plan import Removal, newest
from symbiont_datad.retention.pressure import Candidate, Lack, Space, Stage
from symbiont_datad.retention.quarantine import Expiry
from symbiont_datad.retention.rules import AgeBy, Rule
from symbiont_datad.retention.units import Unit, units_of

LIMITS = "limits"
"""The rule that actions name when they were made for want of space."""

NEARLY_FULL = "disk_nearly_full"
"""The kind of finding that says so when nothing more can be done about it."""

_ROUNDS = 5  # of planning and removing: a writer may fill up at once what was freed
_TRIES = 5
_LOOKS_ON_S, _BETWEEN_LOOKS_S, _AT_MOST_S = 3.0, 0.05, 30.0

_WHY = {
    Stage.CACHES: "least recently used in the cache",
    Stage.EXPIRED: "its time in the quarantine is over",
    Stage.UNDOABLE: "removed before, and only kept to be brought back",
    Stage.ROTATED: "a rotated log that a backup holds",
    Stage.EARLY: "the rule {} would take it later, and a backup holds it",
}


def relieve(context: JobContext) -> JobReport:
    """Make room if the file system of the tree has less free than the high water mark says. For the counts see
    `Tally.report`. Where not enough could be freed, a finding says what would help.

    After that it looks on for a few seconds: whoever filled the disk up may do so again at once.
    """
    tally, book = Tally("relieve"), Book(context)
    helped = make_room(context, Keeping(context), book, tally)
    begun = time.monotonic()
    until = begun + _LOOKS_ON_S
    while helped and not context.dry_run and not context.stopping() and time.monotonic() < until:
        time.sleep(_BETWEEN_LOOKS_S)
        if is_pressed(context):
            helped = make_room(context, Keeping(context), book, tally)
            until = min(time.monotonic() + _LOOKS_ON_S, begun + _AT_MOST_S)
    write_down(context, book, tally)
    tell_of_room(context, tally, tally.actions)
    helpful = next((one.remedy for one in tally.findings if one.kind == NEARLY_FULL), "")
    return tally.report(context, helpful)


def write_down(context: JobContext, book: Book, tally: Tally) -> None:
    """See to it that the ledger has what was done, even if somebody fills the disk up again each time."""
    for _ in range(_TRIES):
        if book.settle() or not is_pressed(context):
            return
        make_room(context, Keeping(context), book, tally)


def tell_of_room(context: JobContext, tally: Tally, actions: Sequence[Action]) -> None:
    """One event for all that was removed to make room."""
    space = _space(context)
    if actions and space is not None and not context.dry_run:
        size = sum(action.bytes for action in actions)
        emit("room_made", job=tally.job, files=len(actions), bytes=size, reason=pressure.told(space))


def is_pressed(context: JobContext) -> bool:
    """Whether the disk is nearly full."""
    space = _space(context)
    return space is not None and pressure.pressed(space, context.settings.marks)


def make_room(context: JobContext, keeping: Keeping, book: Book, tally: Tally) -> bool:
    """Plan, remove, look again; a dry run plans once. Does nothing while the disk is not nearly full.

    Hands back whether what was removed was as much as was asked for. If not, a finding says what would help.
    """
    space, marks = _space(context), context.settings.marks
    if space is None or tally.interrupted or not pressure.pressed(space, marks):
        return False
    enough, waiting = True, 0
    was_quiet, tally.quiet = tally.quiet, True
    for _ in range(_ROUNDS):
        wanted = pressure.lack(space, marks)
        if not wanted or not enough or context.stopping():
            break
        found = _Found(context, keeping, tally, pressure.told(space))
        going = list(pressure.relieve(found.stages(), wanted))
        freed = Lack(sum(one.bytes for _, one in going), sum(one.inodes for _, one in going))
        enough = freed.bytes >= wanted.bytes and freed.inodes >= wanted.inodes
        waiting = sum(found.waiting.values())
        found.remove(going, book)
        if context.dry_run:
            break
        book.settle()  # now there is room for it
        with suppress(OSError, UnsafePath):
            flush(context.layout.tree)
        space = _space(context) or space
    tally.quiet = was_quiet
    if not enough and not context.dry_run and pressure.pressed(space, marks):
        detail = pressure.told(space)
        tally.findings = [one for one in tally.findings if one.kind != NEARLY_FULL]
        tally.findings.append(Finding(NEARLY_FULL, "", Severity.ERROR, detail, _advice(context, waiting)))
    return enough


def _space(context: JobContext) -> Space | None:
    try:
        found, _ = space_of(context.layout.tree)
    except (OSError, UnsafePath):
        return None
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)


def _advice(context: JobContext, waiting: int) -> str:
    """What would help."""
    if waiting:
        return f"a backup would let {format_size(waiting)} go that no backup holds yet"
    largest = ""
    with suppress(LedgerError):
        points, _ = context.ledger.usage()
        most = max(points, key=lambda point: point.bytes, default=None)
        largest = f" (most of the tree is {most.category}, {format_size(most.bytes)})" if most else ""
    return f"nothing is left that may go{largest}: free space beside the tree, or set limits in [retention]"


@dataclass
class _Found:
    """What could go, stage by stage, and what each candidate is."""

    context: JobContext
    keeping: Keeping
    tally: Tally
    told: str
    waiting: dict[str, int] = field(default_factory=dict)
    units: dict[str, tuple[Rule, Listing, Unit]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def stages(self) -> Iterator[tuple[Stage, list[Candidate]]]:
        """The candidates of each stage, listed when it is asked for."""
        yield Stage.CACHES, self._caches()
        yield from self._cells()
        yield Stage.ROTATED, self._rotated()
        yield Stage.EARLY, self._early()

    def remove(self, going: list[tuple[Stage, Candidate]], book: Book) -> None:
        """Remove what was decided, in its order."""
        cells_going = [one.path for stage, one in going if stage in (Stage.EXPIRED, Stage.UNDOABLE)]
        groups: dict[tuple[Stage, str], list[Removal]] = {}
        for stage, one in going:
            if one.path not in self.units or stage in (Stage.EXPIRED, Stage.UNDOABLE):
                continue
            rule, _, unit = self.units[one.path]
            reason = f"{_WHY[stage].format(rule.name)}; the disk is nearly full: {self.told}"
            groups.setdefault((stage, rule.directory), []).append(Removal(unit, reason))
        for (stage, _), removals in sorted(groups.items(), key=lambda group: group[0][0]):
            if stage > Stage.UNDOABLE and cells_going:
                self._remove_cells(cells_going, book)
                cells_going = []
            rule, listing, _ = self.units[removals[0].unit.path]
            take_away(self.context, replace(rule, name=LIMITS), listing, removals, book, self.tally, undo=False)
        self._remove_cells(cells_going, book)

    def _remove_cells(self, names: list[str], book: Book) -> None:
        reason = f"{_WHY[Stage.UNDOABLE]}; the disk is nearly full: {self.told}"
        empty_cells(self.context, [Expiry(name, LIMITS, reason) for name in names], self.sizes, book, self.tally)

    def _caches(self) -> list[Candidate]:
        layout = self.context.layout
        rules = [rule for rule in layout.rules if rule.cache]
        cache = layout.path_of(Category.PROMPTS, "cache")
        if not any(rule.directory == cache and not rule.patterns for rule in rules):
            rules.append(Rule("cache", cache, cache=True, age_by=AgeBy.USED))
        found: list[Candidate] = []
        for rule in rules:
            listing = self._listed(rule)
            if listing is not None:
                found += self._candidates(rule, listing, listing.units)
        return found

    def _cells(self) -> Iterator[tuple[Stage, list[Candidate]]]:
        tree, now = self.context.layout.tree, self.context.now
        over: list[Candidate] = []
        open_still: list[Candidate] = []
        try:
            found = [cell for cell in cells(tree) if cell.undoable]
        except (OSError, UnsafePath):
            found = []
        for cell in found:
            size = extent(tree, cell.place)
            self.sizes[cell.name] = size.bytes
            one = Candidate(cell.name, int(cell.at * 1e9), size.allocated, size.inodes)
            (over if cell.until is not None and cell.until <= now else open_still).append(one)
        yield Stage.EXPIRED, over
        yield Stage.UNDOABLE, open_still

    def _rotated(self) -> list[Candidate]:
        """Rotated logs below the logs directory, whether or not a rule is about them; the audit's only if one is."""
        layout = self.context.layout
        logs, audit = layout.path_of(Category.LOGS), layout.path_of(Category.LOGS, "audit")
        fences = () if any(f"{rule.directory}/".startswith(f"{audit}/") for rule in layout.rules) else (f"{audit}/",)
        protected = _protected(layout)
        entries = [
            entry
            for entry in walk(layout.tree, logs, on_error=lambda _path, _error: None)
            if entry.is_file
            and rotated(entry.path.rpartition("/")[2]) is not None
            and not entry.path.startswith(fences)
            and not protected(entry)
        ]
        rule = Rule("logs", logs)
        return self._held(rule, Listing(entries=entries), units_of(rule, entries))

    def _early(self) -> list[Candidate]:
        """What a rule is about that has bounds, but for its newest; nothing below state, and no cache."""
        layout = self.context.layout
        found: list[Candidate] = []
        for rule in layout.rules:
            if not rule.bounded or rule.cache or layout.category_of(rule.directory) is Category.STATE:
                continue
            listing = self._listed(rule)
            if listing is not None:
                last = newest(listing.units)
                found += self._held(rule, listing, [unit for unit in listing.units if unit is not last])
        return found

    def _listed(self, rule: Rule) -> Listing | None:
        try:
            listing = list_for(self.context.layout, rule)
        except UnsafePath:
            return None
        self.keeping.leave_undone(listing)
        return listing

    def _held(self, rule: Rule, listing: Listing, units: list[Unit]) -> list[Candidate]:
        units = [unit for unit in units if unit.path not in self.units]
        removals = [Removal(unit, "") for unit in units]
        may_go, waiting, _ = held_by_snapshot(self.context, rule, removals, always=True)
        self.waiting.update((removal.unit.path, removal.unit.size) for removal in waiting)
        return self._candidates(rule, listing, [removal.unit for removal in may_go])

    def _candidates(self, rule: Rule, listing: Listing, units: list[Unit]) -> list[Candidate]:
        stay = self.keeping.always(rule, listing) | self.keeping.open_ones(units)
        found = []
        for unit in units:
            if unit.path in stay:
                continue
            self.units[unit.path] = rule, listing, unit
            alone = [entry for entry in unit.members if entry.nlink == 1]  # of others another name remains
            size = sum(entry.allocated for entry in alone)
            found.append(Candidate(unit.path, unit.at_ns, size, len(alone)))
        return found


def _protected(layout: Layout) -> Callable[[Entry], bool]:
    """Tells whether a rule protects a file."""
    guards = [(rule.prefix, matcher(rule.protect)) for rule in layout.rules if rule.protect]

    def protected(entry: Entry) -> bool:
        path = entry.path
        return any(path.startswith(prefix) and bool(match(path[len(prefix) :])) for prefix, match in guards)

    return protected
