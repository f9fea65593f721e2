"""Everything that a user can set: `FilePersistenceConfig` for agents, `Settings` for the daemon, and `load`.

The sections are in `settings_sections`, the sources in `settings_sources`, which is imported by the first `load`.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from symbiont_datad import settings_retention as removing
from symbiont_datad import settings_sections as sections
from symbiont_datad.settings_types import (
    AbsolutePath,
    Count,
    DirectoryMode,
    FileMode,
    Interval,
    RelativePath,
    Section,
    Unit,
    home_of,
    read_absolute,
    read_count,
    read_relative,
    read_text,
)

CATEGORIES = ("state", "logs", "prompts", "vector_db")
SUBDIRECTORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "state": ("agents", "sessions"),
        "logs": ("system", "agents", "audit"),
        "prompts": ("templates", "history", "cache"),
        "vector_db": ("collections", "indexes", "metadata"),
    }
)
"""The eleven directories inside the four categories. With these and the root, the built-in tree has sixteen."""

_SYSTEM = frozenset(
    ["/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
     "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/tmp", "/Applications",
     "/Library", "/System", "/Users", "/Volumes", "/private", "/private/etc", "/private/tmp", "/private/var"]
)  # fmt: skip
_LARGEST_ID = 2**32 - 2  # (uid_t) -1 means "leave it" to chown(2)


Name = tuple[int | str, ...]
"""A dotted name in parts; a number is an index in a list."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Settings that are good alone and bad together; the first of `names`, each in parts, is the one to report."""

    names: tuple[Name, ...]
    text: str


def _read_root(value: object, info: ValidationInfo) -> Path:
    root = read_absolute(value, info)
    real = Path(os.path.realpath(root))
    if str(root) in _SYSTEM or str(real) in _SYSTEM:
        raise ValueError("must be a directory of its own, not one of the system")
    home = home_of(info)
    if home is not None and (real == (at := Path(os.path.realpath(home))) or real in at.parents):
        raise ValueError("must not be a home directory or hold one")
    return root


def _read_account(kind: str) -> Callable[[object], str | int]:
    def read(value: object) -> str | int:
        if isinstance(value, str) and not re.fullmatch(r"\s*[0-9]+\s*", value):
            _account_id(kind, read_text(value))
            return value
        number = read_count(value)
        if not 0 <= number <= _LARGEST_ID:
            raise ValueError(f"must be the name of a {kind}, or a number from 0 to {_LARGEST_ID}")
        return number

    return read


def _account_id(kind: str, name: str) -> int:
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"must be the name or number of a {kind} that this system knows") from None


def _id_of(kind: str, value: str | int | None) -> int | None:
    return _account_id(kind, value) if isinstance(value, str) else value


Root = Annotated[Path, BeforeValidator(_read_root), Unit("plain", "an absolute path, or `~/…`")]
User = Annotated[str | int, PlainValidator(_read_account("user")), WithJsonSchema({"type": ["string", "integer"]}),
                 Unit("plain", "the name or number of a user")]  # fmt: skip
Group = Annotated[str | int, PlainValidator(_read_account("group")), WithJsonSchema({"type": ["string", "integer"]}),
                  Unit("plain", "the name or number of a group")]  # fmt: skip


@lru_cache(maxsize=256)
def _join(root: Path, *parts: str) -> Path:
    return root.joinpath(*parts)


class FilePersistenceConfig(Section):
    """Where Symbiont keeps its files: the eleven settings that the runtime's own configuration has.

    Frozen. The path methods are cached and may be called from any thread; none of them touches the disk.
    """

    root_data_dir: Root = Field(
        Path("~/.symbiont/data"), description="The root of the data directory.", examples=["/srv/symbiont/data"]
    )
    state_dir: RelativePath = Field("state", description="Directory of contexts and sessions.", examples=["state"])
    logs_dir: RelativePath = Field("logs", description="Directory of logs.", examples=["logs"])
    prompts_dir: RelativePath = Field("prompts", description="Directory of prompts.", examples=["prompts"])
    vector_db_dir: RelativePath = Field("vector_db", description="Directory of vectors.", examples=["vector_db"])
    enable_compression: bool = Field(
        True, description="Whether contexts and snapshots are compressed.", examples=[False]
    )
    enable_encryption: bool = Field(
        False, description="Whether snapshots and archived files are sealed with the key file.", examples=[True]
    )
    backup_count: Count = Field(3, description="Number of the latest backups that are always kept.", examples=[7])
    auto_save_interval: Interval = Field(300.0, description="Time between two autosave sweeps.", examples=["10m"])
    auto_create_dirs: bool = Field(
        True, description="Whether missing directories are made at start and while the daemon runs.", examples=[False]
    )
    dir_permissions: DirectoryMode = Field(0o755, description="Mode of the directories.", examples=["0o750"])

    @classmethod
    def load(cls) -> Self:
        """The eleven settings from the daemon's own sources. Raises SettingsError, like `load`."""
        settings = load().settings
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        found = list(self._conflicts())
        if found:
            text = "; ".join(f"{dotted(conflict.names[0])} {conflict.text}" for conflict in found)
            raise PydanticCustomError("conflicts", "{text}", {"text": text, "conflicts": found})
        return self

    def _conflicts(self) -> Iterator[Conflict]:
        names = [f"{category}_dir" for category in CATEGORIES]
        for index, name in enumerate(names):
            for other in names[:index]:
                one, two = getattr(self, name), getattr(self, other)
                if f"{one}/".startswith(f"{two}/") or f"{two}/".startswith(f"{one}/"):
                    yield Conflict(((name,), (other,)), f'must not overlap {other}, which is "{two}"')

    def state_path(self) -> Path:
        """The directory of contexts and sessions."""
        return _join(self.root_data_dir, self.state_dir)

    def logs_path(self) -> Path:
        """The directory of logs."""
        return _join(self.root_data_dir, self.logs_dir)

    def prompts_path(self) -> Path:
        """The directory of prompts."""
        return _join(self.root_data_dir, self.prompts_dir)

    def vector_db_path(self) -> Path:
        """The directory of vectors."""
        return _join(self.root_data_dir, self.vector_db_dir)

    def agent_contexts_path(self) -> Path:
        """The directory with one context per agent."""
        return _join(self.root_data_dir, self.state_dir, "agents")

    def sessions_path(self) -> Path:
        """The directory of sessions."""
        return _join(self.root_data_dir, self.state_dir, "sessions")

    def built_in_directories(self) -> tuple[str, ...]:
        """The built-in directories below the root, relative to it, parents first.

        There are fifteen, and one more for each step of a category's name that has several (`state_dir = "var/state"`).
        """
        found: dict[str, None] = {}
        for category in CATEGORIES:
            top: str = getattr(self, f"{category}_dir")
            steps = top.split("/")
            found.update({"/".join(steps[: i + 1]): None for i in range(len(steps))})
            found.update({f"{top}/{name}": None for name in SUBDIRECTORIES[category]})
        return tuple(found)

    def ensure_directories(self) -> tuple[Path, ...]:
        """Creates what is missing of the root and the built-in directories, and returns what it created.

        A directory that it creates gets `dir_permissions`; one that is there is left as it is. May be called again and
        from several threads and processes. Raises NotADirectoryError when something else, such as a file or a link,
        stands where a directory belongs, and OSError as mkdir(2) does. Below the root no link is followed.
        """
        created: list[Path] = []
        self.root_data_dir.parent.mkdir(parents=True, exist_ok=True)
        root = _open_directory(self.root_data_dir, None, self.dir_permissions, self.root_data_dir, created)
        try:
            for relative in self.built_in_directories():
                _ensure_below(root, self.root_data_dir, relative, self.dir_permissions, created)
        finally:
            os.close(root)
        return tuple(created)


def _ensure_below(root: int, root_path: Path, relative: str, mode: int, created: list[Path]) -> None:
    at, shown = os.dup(root), root_path
    try:
        for name in relative.split("/"):
            shown = shown / name
            inner = _open_directory(name, at, mode, shown, created)
            os.close(at)
            at = inner
    finally:
        os.close(at)


def _open_directory(name: str | Path, parent: int | None, mode: int, shown: Path, created: list[Path]) -> int:
    """A descriptor of the directory `name` in `parent` (None: `name` is absolute, and may be a link to a directory)."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        made = True
    except FileExistsError:
        made = False
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) or (error.errno == errno.ENOENT and not made and parent is None):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            what = "a link" if stat.S_ISLNK(found.st_mode) else "something that is no directory"
            text = f"{what} stands where a directory belongs"
            raise NotADirectoryError(errno.ENOTDIR, text, str(shown)) from error
        raise
    if made:
        try:
            os.fchmod(descriptor, mode)
        except OSError:
            os.close(descriptor)
            raise
        created.append(shown)
    return descriptor


def _read_permissions(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ValueError('must be a table of modes, as "logs/audit" = 0o750')
    return {"." if path == "." else read_relative(path): mode for path, mode in value.items()}


Permissions = Annotated[Mapping[str, DirectoryMode], BeforeValidator(_read_permissions),
                        Unit("mode", 'a mode per directory, as `"logs/audit" = 0o750`')]  # fmt: skip


_LIMITS = frozenset(removing.RetentionPolicy.model_fields)


def _daemon_dir(given: dict[str, Any]) -> Path:
    return cast(Path, given["root_data_dir"]).parent / "datad"


class Settings(FilePersistenceConfig):
    """All settings of the daemon. After validation durations are seconds, sizes bytes, modes numbers."""

    daemon_dir: AbsolutePath = Field(
        default_factory=_daemon_dir,
        description="Directory of the daemon's own files: ledger, lock, status.",
        examples=["/var/lib/symbiont/datad"],
        json_schema_extra={"derived": "`datad`, beside the root or in `$STATE_DIRECTORY`"},
    )
    file_permissions: FileMode | None = Field(
        None, description="Mode of the files in the tree. Unset: left as they are.", examples=["0o640"]
    )
    owner: User | None = Field(
        None, description="Owner of the tree. Unset: left as it is. Needs root.", examples=[1000]
    )
    group: Group | None = Field(None, description="Group of the tree. Unset: left as it is.", examples=[1000])
    permissions: Permissions = Field(
        {}, description='Mode of one directory, by its path relative to the root ("." is the root).',
        examples=[{"logs/audit": "0o750"}],
    )  # fmt: skip
    guard: sections.Guard = sections.Guard()
    autosave: sections.Autosave = sections.Autosave()
    prompts: sections.Prompts = sections.Prompts()
    backup: sections.Backup = sections.Backup()
    encryption: sections.Encryption = Field(default_factory=sections.Encryption)
    state: sections.State = sections.State()
    logs: sections.Logs = sections.Logs()
    retention: removing.Retention = removing.Retention()
    quarantine: removing.Quarantine = removing.Quarantine()
    limits: removing.Limits = removing.Limits()
    ledger: removing.LedgerLimits = removing.LedgerLimits()
    vector_db: sections.VectorDb = sections.VectorDb()
    migration: sections.Migration = sections.Migration()
    http: sections.Http = sections.Http()
    metrics: sections.Metrics = sections.Metrics()
    schedule: sections.Schedules = sections.Schedules()
    logging: sections.Logging = sections.Logging()
    layout: sections.ExtraLayout = sections.ExtraLayout()

    @field_validator("backup")
    @classmethod
    def _repository_beside_the_root(cls, backup: sections.Backup, info: ValidationInfo) -> sections.Backup:
        root: Path | None = info.data.get("root_data_dir")  # None: it was refused
        if backup.repository is not None or root is None:
            return backup
        return backup.model_copy(update={"repository": str(root.parent / "backups")})

    def _conflicts(self) -> Iterator[Conflict]:
        from symbiont_datad.settings_conflicts import conflicts

        yield from super()._conflicts()
        yield from conflicts(self)

    def owner_ids(self) -> tuple[int | None, int | None]:
        """The ids of `owner` and `group`, None where unset. Raises ValueError when a name is no longer known."""
        return _id_of("user", self.owner), _id_of("group", self.group)

    def retention_of(self, directory: sections.ExtraDirectory) -> removing.RetentionPolicy:
        """What goes from an extra directory: by its own settings, and by those of the `[retention]` table of its name
        where it says nothing."""
        found = {name: getattr(directory, name) for name in directory.model_fields_set & _LIMITS}
        named = self.retention.named.get(directory.path)
        if named is not None and named.directory is None:
            found = {name: getattr(named, name) for name in named.model_fields_set & _LIMITS} | found
        return removing.RetentionPolicy.model_construct(**found)

    def repository_path(self) -> Path | None:
        """The snapshot repository's directory, None when it is in an object store."""
        repository = self.backup.repository or ""
        return None if repository.startswith(sections.OBJECT_STORES) else Path(repository)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the source of every value, by dotted name, and the file that was read (None: there is none)."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


def load(
    config_file: Path | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The settings from all sources; the first that has a value wins.

    `overrides` are the command line's, by dotted name; None there means "not given". `environ` is the process's own
    environment when it is None. Nothing on disk is changed. Raises SettingsError with one line for each problem.
    """
    from symbiont_datad.settings_sources import read

    return read(config_file, overrides, os.environ if environ is None else environ)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting that has a value: `path` is its dotted name in parts."""

    path: tuple[str, ...]
    value: object
    field: FieldInfo

    @property
    def name(self) -> str:
        """The dotted name, as a dotted key of TOML."""
        return dotted(self.path)


def leaves(model: BaseModel, prefix: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every setting of a model, in the order in which they are declared. A mode of `[permissions]` is one each."""
    for name, field in type(model).model_fields.items():
        path, value = (*prefix, name), getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, path)
        elif isinstance(value, Mapping):
            yield from (Leaf((*path, str(key)), inner, field) for key, inner in value.items())
        else:
            yield Leaf(path, value, field)
    for name, value in (model.__pydantic_extra__ or {}).items():
        yield from leaves(value, (*prefix, name))


_KEY = re.compile(r'\s*(?:([A-Za-z0-9_-]+)|"((?:[^"\\]|\\["\\])*)")\s*(\.|$)')


def dotted(name: Name) -> str:
    """The parts of a name as a dotted key of TOML, `retention."reports/daily".max_age`; an index is in brackets."""
    text = ""
    for part in name:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        if not re.fullmatch(r"[A-Za-z0-9_-]+", part):
            part = '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text += f".{part}" if text else part
    return text


def undotted(name: str) -> tuple[str, ...]:
    """The parts of a dotted name. Raises ValueError when it is none."""
    parts, at = [], 0
    while match := _KEY.match(name, at):
        parts.append(match[1] if match[1] is not None else re.sub(r"\\(.)", r"\1", match[2]))
        at = match.end()
        if not match[3]:
            return tuple(parts)
    raise ValueError(f"no dotted name: {name!r}")
