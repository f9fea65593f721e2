"""What lies where a rule is about it, and what of that must stay whatever the rule says."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.opened import OpenFiles, identity, open_files
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.layout import Layout
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.retention.days import days_ahead
from symbiont_datad.retention.patterns import matcher
from symbiont_datad.retention.rules import Rule
from symbiont_datad.retention.units import Unit, units_of

UNDONE = "removal_undone"
"""The kind of action that brings something back; for the undo window no rule takes it again."""


@dataclass(slots=True)
class Listing:
    """What a rule is about, as `entries` and as `units`, and what else lies there.

    `others`: paths of what is none of the rule's business. `blocked`: whole directories that can't go whole, and why.
    """

    entries: list[Entry] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """What could not be listed."""
        remedy = "let the daemon's user read it"
        return [Finding("unread", path, Severity.WARNING, reason, remedy) for path, reason in self.unread.items()]


def list_for(layout: Layout, rule: Rule) -> Listing:
    """Walk the rule's directory. Raises UnsafePath when that is on another file system, say."""
    listing = Listing()
    reach = layout.reach_of(rule)
    fences, plain = reach.fences, reach.plain
    strange: dict[str, str] = {}

    def unread(path: str, error: OSError) -> None:
        listing.unread[path] = error.strerror or str(error)

    entries, others = listing.entries, listing.others
    for entry in walk(
        layout.tree, rule.directory, on_error=unread, on_directory=lambda path, _: listing.directories.add(path)
    ):
        if not (entry.is_file or stat.S_ISLNK(entry.mode)):
            strange[entry.path] = "it holds something that is neither a file nor a link"
        elif (not fences or not entry.path.startswith(fences)) and (plain or reach.takes(entry.path)):
            entries.append(entry)
        else:
            others.add(entry.path)
    mounts = {path for path in mounts_below(layout.root) if path.startswith(rule.prefix)}
    if rule.whole:
        _block(layout, rule, listing, strange, mounts)
    others.update(strange, mounts)
    listing.units = units_of(rule, entries)
    return listing


def _block(layout: Layout, rule: Rule, listing: Listing, strange: dict[str, str], mounts: Iterable[str]) -> None:
    """Find the directories right in the rule's one that can't go whole."""
    prefix = rule.prefix

    def block(paths: Iterable[str], why: str) -> None:
        for path in paths:
            name, slash, _ = path[len(prefix) :].partition("/")
            if slash and path.startswith(prefix):
                listing.blocked.setdefault(prefix + name, why)

    for path, why in strange.items():
        block([path], why)
    block(listing.others, "another rule is about a part of it")
    block((f"{path}/" for path in listing.unread), "not all of it can be read")
    block((f"{path}/" for path in mounts), "another file system is mounted in it")
    block((f"{path}/" for path in layout.by_path), "a part of it is declared in the layout")


class Keeping:
    """What stays whatever a rule says; asked for several rules in one run."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._opened: OpenFiles | None = None
        self._undone: frozenset[str] | None = None

    def always(self, rule: Rule, listing: Listing) -> set[str]:
        """The paths of units that stay because of what they are: protected by a pattern, unable to go whole, or of
        today or tomorrow. They count towards the caps.
        """
        layout, stay = self._context.layout, set(listing.blocked)
        if rule.protect:
            match, cut = matcher(rule.protect), len(rule.prefix)
            stay.update(
                unit.path
                for unit in listing.units
                if match(unit.path[cut:]) or (unit.whole and any(match(entry.path[cut:]) for entry in unit.members))
            )
        if rule.directory == layout.days:
            zone = datetime.fromtimestamp(self._context.now).astimezone().tzinfo
            stay.update(f"{rule.prefix}{day}" for day in days_ahead(self._context.now, zone))
        return stay

    def leave_undone(self, listing: Listing) -> None:
        """Take out of a listing's units what `clean --undo` has just brought back. It counts towards no cap either:
        else a rule would take others in its place.
        """
        undone = self._just_undone()
        if undone:
            above = _with_above(undone)
            paths = ((unit, f"{printable(unit.path)}/") for unit in listing.units)
            listing.units = [
                unit for unit, path in paths if path not in above and undone.isdisjoint(_with_above([path]))
            ]

    def open_ones(self, units: Iterable[Unit]) -> set[str]:
        """The paths of units that a process has open, or a part of them.

        An entry has no device: those few that have the inode of an open file are looked at once more.
        """
        if self._opened is None:
            self._opened = open_files(self._context.layout.root)
        files, tree = self._opened.files, self._context.layout.tree
        inodes = {inode for _, inode in files}
        return {
            unit.path
            for unit in units
            if any(entry.inode in inodes and identity(tree, entry.path) in files for entry in unit.members)
        }

    def _just_undone(self) -> frozenset[str]:
        """What was brought back within the undo window, as the ledger spells it, with a slash behind it."""
        if self._undone is None:
            since = self._context.now - self._context.settings.undo_window_s
            try:
                rows = self._context.ledger.actions(kinds=(UNDONE,), since=since)
            except LedgerError as error:
                emit("ledger_failed", job="clean", reason=str(error))
                rows = []
            self._undone = frozenset(f"{row.path}/" for row in rows if row.state != "failed")
        return self._undone


def _with_above(paths: Iterable[str]) -> set[str]:
    """Paths that end with a slash, and those of all directories above them."""
    return {path[: at + 1] for path in paths for at, char in enumerate(path) if char == "/"}


def refusal(rule: Rule, error: UnsafePath) -> Finding:
    """What is said when the rule's directory can't be reached safely."""
    remedy = "keep this directory on the file system of the tree, or take its limits out of the settings"
    return Finding("not_cleaned", rule.directory, Severity.WARNING, str(error), remedy)
