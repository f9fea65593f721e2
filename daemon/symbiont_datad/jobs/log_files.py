"""What lies in the logs directory: live logs, their archives, and what a rotation that was killed has left."""

from collections import defaultdict
from dataclasses import dataclass, field

from symbiont_datad.formats.rotated import TAKEN, UNFINISHED, Rotated, hidden_part, rotated
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.logs import Archive, LogRule

MANIFEST = "archives.manifest"
"""The name of the manifest of audit archives, in the directory of the audit logs."""


@dataclass(frozen=True, slots=True)
class Log:
    """A live log and the rule that it is rotated by. Its path is relative to the root."""

    entry: Entry
    rule: LogRule

    @property
    def path(self) -> str:
        """Where it is."""
        return self.entry.path


@dataclass(slots=True)
class LogFiles:
    """All of it: logs in the order of their paths; `archives` by the path of their log, the oldest first; `entries` are
    theirs, by their path."""

    logs: list[Log] = field(default_factory=list)
    archives: dict[str, list[Archive]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    unfinished: list[Entry] = field(default_factory=list)
    """Archives that were being written."""
    taken: list[Entry] = field(default_factory=list)
    """Logs that were taken from their place and have no name of an archive yet."""
    findings: list[Finding] = field(default_factory=list)

    def newest(self, log: str) -> Rotated | None:
        """The newest archive of a log."""
        some = self.archives.get(log)
        return some[-1].place if some else None


def list_logs(context: JobContext) -> LogFiles:
    """Look through the logs directory, once. Raises UnsafePath when another file system is mounted there."""
    settings, found = context.settings.logs, LogFiles()
    by_log: dict[str, list[Archive]] = defaultdict(list)

    def unread(path: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        found.findings.append(Finding("unread", path, Severity.WARNING, reason, "let the daemon's user read it"))

    for entry in walk(context.layout.tree, settings.directory, on_error=unread):
        if not entry.is_file:
            continue
        folder, _, name = entry.path.rpartition("/")
        if name.startswith(".") and hidden_part(name, UNFINISHED):
            found.unfinished.append(entry)
        elif name.startswith(".") and hidden_part(name, TAKEN):
            found.taken.append(entry)
        elif (place := rotated(name)) is not None:
            log = f"{folder}/{place.live}"
            by_log[log].append(Archive(entry.path, log, place, entry.size))
            found.entries[entry.path] = entry
        elif name != MANIFEST and (rule := settings.rule_of(entry.path)) is not None:
            found.logs.append(Log(entry, rule))
    found.logs.sort(key=lambda log: log.entry.path)
    found.archives = {log: sorted(some, key=lambda archive: archive.place) for log, some in by_log.items()}
    return found
