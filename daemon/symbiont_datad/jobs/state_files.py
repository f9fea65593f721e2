"""What lies below `state/`, by one walk, sorted by what it is."""

from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from symbiont_datad.formats.context import BY_SCHEMA, Document, Verdict
from symbiont_datad.formats.state_name import Role, StateName, name_of
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.saving import Fingerprint
from symbiont_datad.layout import Category, Layout
from symbiont_datad.retention.backups import Backup


@dataclass(frozen=True, slots=True)
class StateFile:
    """A context, an archive or a session. What its name says is told anew when somebody asks: there may be a million.

    `gzip` and `sealed` are what the name promises.
    """

    entry: Entry
    document: Document
    gzip: bool
    sealed: bool = False

    @property
    def path(self) -> str:
        """Where it is, relative to the root."""
        return self.entry.path

    @property
    def name(self) -> StateName:
        """What the name of a context or an archive says. A session may be called anything."""
        parts = self.path.split("/")
        found = name_of("/".join(parts[-3:] if self.document is Document.ARCHIVE else parts[-1:]))
        assert found is not None
        return found

    @property
    def what(self) -> str:
        """`context`, `archive` or `session`: how its findings' kinds begin."""
        return "session" if self.document is Document.ANY else self.document.value


@dataclass(slots=True)
class StateFiles:
    """All of it. `unread`: what could not be listed or read, with the reason."""

    contexts: list[StateFile] = field(default_factory=list)
    sessions: list[StateFile] = field(default_factory=list)
    archives: list[StateFile] = field(default_factory=list)
    backups: dict[str, list[Backup]] = field(default_factory=lambda: defaultdict(list))
    leftovers: list[Entry] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> list[StateFile]:
        """Those that are read, whether or not anything is wrong with them."""
        return [*self.contexts, *self.sessions, *self.archives]


@dataclass(frozen=True, slots=True)
class Listing:
    """One walk: the entries, what lstat says of them in short, and what could not be listed, with the reason."""

    entries: list[Entry]
    seen: Fingerprint
    unread: dict[str, str]


def list_state(layout: Layout, now: float) -> Listing:
    """List everything below `state/`. The quarantine is not there, and no walk enters it."""
    unread: dict[str, str] = {}

    def failed(path: str, error: OSError) -> None:
        unread[path] = error.strerror or str(error)

    entries = list(walk(layout.tree, layout.path_of(Category.STATE), on_error=failed))
    seen = Fingerprint(now)
    seen.extend(entries)
    return Listing(entries, seen, unread)


def sort_state(layout: Layout, listing: Listing) -> StateFiles:
    """What the files are, by their names."""
    files = StateFiles(unread=listing.unread)
    agents = f"{layout.agents}/"
    sessions = f"{layout.path_of(Category.STATE, 'sessions')}/"
    for entry in listing.entries:
        path = entry.path
        if not entry.is_file:
            continue
        if path.startswith(agents):
            name = name_of(path[len(agents) :])
            if name is not None:
                _sort_agents(files, entry, name)
        elif path.endswith(".tmp"):
            files.leftovers.append(entry)
        elif path.startswith(sessions) and path.endswith((".json", ".json.gz")):
            gzip = path.endswith(".gz")
            files.sessions.append(StateFile(entry, Document.ANY, gzip))
    return files


def _sort_agents(files: StateFiles, entry: Entry, name: StateName) -> None:
    if name.role is Role.CONTEXT:
        files.contexts.append(StateFile(entry, Document.CONTEXT, name.gzip, name.sealed))
    elif name.role is Role.BACKUP:
        files.backups[name.agent].append(Backup(name.agent, name.seconds, entry))
    elif name.role is Role.ARCHIVE:
        files.archives.append(StateFile(entry, Document.ARCHIVE, name.gzip, name.sealed))
    else:
        files.leftovers.append(entry)


def is_stranger(file: StateFile, verdict: Verdict) -> bool:
    """Whether a file among the contexts is JSON of somebody else's: the runtime passes over names that are no UUIDs."""
    return file.document is Document.CONTEXT and verdict.kind in BY_SCHEMA and not _is_uuid(file.name.agent)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
