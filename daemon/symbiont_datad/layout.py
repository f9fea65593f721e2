"""The declared tree: a table of directories, made from the settings and then never changed.

The layout is plain data, and importing it costs nothing: the guard compares it with the disk many times a minute, and a
job in a child process gets it without loading the settings.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from symbiont_datad.fsops.root import Tree, resolve
from symbiont_datad.retention.rules import AgeBy, Reach, Rule

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings
    from symbiont_datad.settings_retention import RetentionPolicy


class Category(StrEnum):
    """The four top directories, by what they hold; `OTHER` is what lies beside them."""

    STATE = "state"
    LOGS = "logs"
    PROMPTS = "prompts"
    VECTOR_DB = "vector_db"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Directory:
    """One row of the layout. `path` is relative to the root; `""` is the root itself.

    In an `open` directory users make directories of their own, and those are given the same mode. A directory that is
    not `required` is kept right when it is there, and not created (the runtime makes `archives/` when it needs it).
    """

    path: str
    mode: int
    purpose: str
    open: bool = False
    required: bool = True

    @property
    def parent(self) -> str:
        """The path of the directory above."""
        return self.path.rpartition("/")[0]


_PURPOSES: tuple[tuple[Category, str, str, bool, bool], ...] = (
    (Category.STATE, "", "agent state", False, True),
    (Category.STATE, "agents", "contexts, one file an agent", False, True),
    (Category.STATE, "agents/archives", "archived contexts, one directory an agent", True, False),
    (Category.STATE, "sessions", "sessions", False, True),
    (Category.LOGS, "", "logs", False, True),
    (Category.LOGS, "system", "the runtime's log", False, True),
    (Category.LOGS, "agents", "one log an agent", False, True),
    (Category.LOGS, "audit", "security events", False, True),
    (Category.PROMPTS, "", "prompts", False, True),
    (Category.PROMPTS, "templates", "prompt templates", False, True),
    (Category.PROMPTS, "history", "executed prompts, one directory a day", True, True),
    (Category.PROMPTS, "cache", "cached results", False, True),
    (Category.VECTOR_DB, "", "vector database", False, True),
    (Category.VECTOR_DB, "collections", "collections, one directory each", True, True),
    (Category.VECTOR_DB, "indexes", "indexes, one directory each", True, True),
    (Category.VECTOR_DB, "metadata", "what is known of each collection", False, True),
)


@dataclass(frozen=True)
class Layout:
    """What the tree should look like. `directories` lists parents before their children.

    `uid` and `gid` are -1, and `file_mode` is None, where the user leaves them alone. `categories` maps a category to
    the path of its directory, which the user can change. Without `create`, what is missing is reported and not made.
    In the directory `days` (None: in none) those of today and tomorrow are made.
    """

    root: str
    directories: tuple[Directory, ...]
    categories: tuple[tuple[Category, str], ...]
    rules: tuple[Rule, ...] = ()
    create: bool = True
    file_mode: int | None = None
    uid: int = -1
    gid: int = -1
    days: str | None = None

    @property
    def tree(self) -> Tree:
        """The way to the disk."""
        return Tree(self.root)

    @cached_property
    def by_path(self) -> dict[str, Directory]:
        """The rows by path."""
        return {directory.path: directory for directory in self.directories}

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The directories whose usage is told, each without the ones below it: the root, and all rows below it."""
        return tuple(row.path for row in self.directories)

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """The directories in which something declared can be removed or changed: those with rows below, and open ones.

        A leaf such as `logs/agents` isn't among them, because its parent already tells what happens to it. So what
        agents do with their files there never reaches the daemon. Nor is a directory watched for the sake of one that
        isn't required: agents save their contexts in `state/agents`.
        """
        parents = {directory.parent for directory in self.directories if directory.path and directory.required}
        return tuple(row.path for row in self.directories if row.open or row.path in parents)

    @property
    def saves(self) -> tuple[str, ...]:
        """The directories in which every save of a file matters, and is looked at soon."""
        templates = f"{dict(self.categories).get(Category.PROMPTS, '')}/templates"
        return (templates,) if templates in self.by_path else ()

    def row_for(self, path: str) -> Directory | None:
        """The row that says what the directory at `path` should be: its own, or that of the open directory it is in."""
        own = self.by_path.get(path)
        if own is not None:
            return own
        parent = self.by_path.get(path.rpartition("/")[0])
        return parent if parent is not None and parent.open and path else None

    def below(self, path: str) -> Iterator[Directory]:
        """The rows at and below `path`, parents first."""
        prefix = f"{path}/" if path else ""
        return (row for row in self.directories if row.path == path or row.path.startswith(prefix))

    def category_of(self, path: str) -> Category:
        """The category that a file or directory belongs to."""
        for category, top in self.categories:
            if path.startswith(top) and (len(path) == len(top) or path[len(top)] == "/"):
                return category
        return Category.OTHER

    def path_of(self, category: Category, name: str = "") -> str:
        """The path of a category's directory, or of one below it, relative to the root."""
        top = dict(self.categories)[category]
        return f"{top}/{name}" if name else top

    def reach_of(self, rule: Rule) -> Reach:
        """Which files are the business of a rule, among those of the layout; the audit log is nobody's, unless there is
        a rule about it.
        """
        return Reach(rule, self.rules, [self.path_of(Category.LOGS, "audit")])

    @property
    def agents(self) -> str:
        """Where the runtime keeps its contexts."""
        return self.path_of(Category.STATE, "agents")


def layout_of(settings: "Settings") -> Layout:
    """The layout that the settings declare. The root is resolved here, once: links in its path are the user's own."""
    names = {
        Category.STATE: settings.state_dir,
        Category.LOGS: settings.logs_dir,
        Category.PROMPTS: settings.prompts_dir,
        Category.VECTOR_DB: settings.vector_db_dir,
    }
    rows = {"": Directory("", _mode(settings, "."), "the data directory")}
    for category, name, purpose, is_open, required in _PURPOSES:
        top = names[category]
        path = f"{top}/{name}" if name else top
        for step in _steps(top):  # a category's directory may lie deeper: `state_dir = "var/state"`
            rows.setdefault(step, Directory(step, _mode(settings, step), f"holds {top}"))
        rows[path] = Directory(path, _mode(settings, path), purpose, is_open, required)
    for extra in settings.layout.directory:
        mode = extra.mode if extra.mode is not None else _mode(settings, extra.path)
        rows[extra.path] = Directory(extra.path, mode, extra.purpose, extra.open)
    for extra in settings.layout.directory:
        for step in _steps(extra.path):  # what is declared below `archives/` is made, and so archives must be
            rows[step] = replace(rows[step], required=True)
    uid, gid = settings.owner_ids()
    return Layout(
        root=resolve(str(settings.root_data_dir)),
        directories=tuple(sorted(rows.values(), key=lambda row: row.path.count("/") + bool(row.path))),
        categories=tuple(names.items()),
        rules=tuple(_rules(settings)),
        create=settings.auto_create_dirs,
        file_mode=settings.file_permissions,
        uid=-1 if uid is None else uid,
        gid=-1 if gid is None else gid,
        days=f"{settings.prompts_dir}/history" if settings.guard.make_days else None,
    )


def _steps(path: str) -> list[str]:
    """The directories above a path: `a` and `a/b` for `a/b/c`."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _mode(settings: "Settings", path: str) -> int:
    return settings.permissions.get(path, settings.dir_permissions)


def _rules(settings: "Settings") -> Iterator[Rule]:
    retention = settings.retention
    logs, cache = settings.logs_dir, f"{settings.prompts_dir}/cache"
    extra = {directory.path: directory for directory in settings.layout.directory}
    places: list[tuple[str, str, RetentionPolicy]] = [
        ("cache", cache, retention.cache),
        ("history", f"{settings.prompts_dir}/history", retention.history),
        ("sessions", f"{settings.state_dir}/sessions", retention.sessions),
        ("archives", f"{settings.state_dir}/agents/archives", retention.archives),
        ("logs", logs, retention.logs),
    ]
    places += [(path, path, settings.retention_of(directory)) for path, directory in extra.items()]
    places += [
        (name, policy.directory or name, policy)
        for name, policy in retention.named.items()
        if policy.directory is not None or name not in extra
    ]
    for name, path, policy in places:
        rule = Rule(
            name,
            path,
            policy.max_age,
            policy.max_bytes,
            policy.max_files,
            age_by=AgeBy(policy.age_by),
            whole=policy.whole,
            patterns=getattr(policy, "patterns", ()),
            protect=policy.protect,
            cache=f"{path}/".startswith(f"{cache}/"),
            broken=getattr(policy, "remove_broken", False),
            keep_newest=f"{path}/".startswith(f"{logs}/"),
            pack_after_s=getattr(policy, "pack_after", None),
        )
        if rule.active:
            yield rule
