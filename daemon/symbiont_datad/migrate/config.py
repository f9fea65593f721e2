"""Settings of before the tree, rewritten in the user's own files: comments, order and formatting stay.

What is decided (`rewritten`, `settings_of`) is pure; writing it comes after. Only TOML files of the user are rewritten.
Files and variables of the environment are told of: they hold tokens, and are often made by something else.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.write import write_atomic
from symbiont_datad.migrate.compat import place_of
from symbiont_datad.migrate.detect import resolved
from symbiont_datad.migrate.legacy import NEW_PERSISTENCE, OLD_PERSISTENCE, SETTINGS, Kind, Mention
from symbiont_datad.migrate.target import Target

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

    from symbiont_datad.migrate.journal import Journal

VECTORS = "SYMBIONT_VECTOR_DATA_PATH"
"""The runtime knows where its vectors are by this variable alone."""

_OLD, _NEW = "storage_path", "root_data_dir"
_BACKUP = ".bak"
_HEAD = "# Settings of symbiont-datad. `symbiont-datad config show` tells what is in force.\n"


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is changed: its dotted name, and what is said before and after."""

    name: str
    before: str
    after: str


@dataclass(slots=True)
class Rewritten:
    """A settings file as it is and as it will be. `text` is None where there is no file yet."""

    path: str
    before: str | None
    after: str
    changes: list[Change] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything is to be written."""
        return self.after != (self.before or "")


# The runtime's files


def rewritten(path: str, text: str, target: Target, directory: str, home: str | None) -> Rewritten:
    """A settings file of the runtime with the new places; `directory` is the runtime's working directory. Pure.

    `storage_path` becomes `root_data_dir`; settings that stay what they are get new values. Raises ValueError for what
    is no TOML.
    """
    import tomlkit

    document = _parsed(text)
    changes = []
    for name, kind in SETTINGS.items():
        table = _table(document, name[:-1])
        value = table.get(name[-1]) if table is not None else None
        if table is None or not isinstance(value, str) or not value.strip():
            continue
        key = name[-1]
        if key == _OLD:
            if _NEW in table:
                continue  # it says already where; what the old one says counts no more
            _rename(table, key, _NEW, target.root)
            changes.append(Change(".".join(name), f'{_OLD} = "{value}"', f'{_NEW} = "{target.root}"'))
            continue
        new = new_place(kind, value, target)
        if not _is_inside(value, target, directory, home):
            table[key] = new
            changes.append(Change(".".join(name), f'{key} = "{value}"', f'{key} = "{new}"'))
    return Rewritten(path, text, tomlkit.dumps(document) if changes else text, changes)


def new_place(kind: Kind, value: str, target: Target) -> str:
    """The absolute path that takes the place of an old one."""
    place = f"{target.root}/{place_of(kind, target)}"
    return f"{place}/{os.path.basename(value)}" if kind is Kind.LOGS else place


def _is_inside(value: str, target: Target, directory: str, home: str | None) -> bool:
    path = resolved(value, directory, home)
    return path is None or f"{os.path.realpath(path)}/".startswith(f"{target.root}/")


def _table(document: Any, path: Sequence[str]) -> Any:
    table = document
    for key in path:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table if isinstance(table, Mapping) else None


def _rename(table: Any, old: str, new: str, value: str) -> None:
    """Another name and value in the same line. tomlkit has no public call for that (0.15): its container has."""
    import tomlkit
    from tomlkit.container import Container, OutOfOrderTableProxy

    if isinstance(table, OutOfOrderTableProxy):  # it stands in several places of the file
        table = next(part for part in table._tables if old in part)
    container = table if isinstance(table, Container) else table.value
    container._replace(old, new, tomlkit.string(value))
    if container is not table:
        dict.pop(table, old, None)
        dict.__setitem__(table, new, value)


# datad.toml


@dataclass(frozen=True, slots=True)
class OldValue:
    """A value of an old `FilePersistenceConfig`: where it stands, its name, and what it is."""

    where: str
    name: str
    value: object


def old_values(path: str, document: Mapping[str, Any]) -> Iterator[OldValue]:
    """The values beside a `storage_path` (or a `root_data_dir`) in a runtime's file, given as plain data."""
    for name in SETTINGS:
        if name[-1] != _OLD:
            continue
        table = _table(document, name[:-1])
        if table is None or not {_OLD, _NEW} & set(table):
            continue
        for key in (*OLD_PERSISTENCE, *NEW_PERSISTENCE):
            if key in table:
                yield OldValue(f"{'.'.join(name[:-1])}.{key} in {path}", key, table[key])


@dataclass(slots=True)
class NewSettings:
    """What comes into datad.toml, and what a person has to decide."""

    values: dict[str, object] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def settings_of(
    values: Sequence[OldValue], in_force: Mapping[str, object], given: Mapping[str, object], *, has_key: bool
) -> NewSettings:
    """Which of the old values datad.toml needs. Pure.

    `in_force`: the settings as they are; `given`: those that datad.toml sets itself, which stay. Encryption needs a key
    first, and the runtime itself never encrypted anything.
    """
    new = NewSettings()
    for one in values:
        value = _as_ours(one.name, one.value)
        if value == in_force.get(one.name) or value == new.values.get(one.name):
            continue
        if one.name in given or one.name in new.values:
            kept = given.get(one.name, new.values.get(one.name))
            new.told.append(f"{one.where} = {one.value}: datad.toml has {one.name} = {kept}, which stays")
        elif one.name == "enable_encryption" and value is True and not has_key:
            advice = "make a key with `symbiont-datad key new`, then set enable_encryption = true in datad.toml"
            new.told.append(f"{one.where} = true: {advice}")
        else:
            new.values[one.name] = value
    return new


def _as_ours(name: str, value: object) -> object:
    if name == "auto_save_interval" and isinstance(value, int):
        return float(value)
    return value


def with_settings(path: str, text: str | None, values: Mapping[str, object]) -> Rewritten:
    """A datad.toml with these values as well; what it has stays. Pure. Raises ValueError for what is no TOML."""
    import tomlkit

    # A last line without an end would run into what is added.
    document = _parsed(f"{text}\n" if text and not text.endswith("\n") else text if text is not None else _HEAD)
    changes = []
    for name, value in values.items():
        shown = _spelled(name, value)
        document.add(name, tomlkit.value(shown))
        changes.append(Change(name, "", f"{name} = {shown}"))
    after = tomlkit.dumps(document) if values else text or ""
    return Rewritten(path, text, after, changes)


def _spelled(name: str, value: object) -> str:
    import json

    if isinstance(value, bool):
        return str(value).lower()
    if name == "dir_permissions" and isinstance(value, int):
        return f"0o{value:o}"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _parsed(text: str) -> "TOMLDocument":
    """A file as tomlkit has it. Raises ValueError for what is no TOML."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


# What is left to the user


def further(
    mentions: Sequence[Mention], target: Target, directory: str, home: str | None, *, vectors: bool
) -> list[str]:
    """What else has to be set, by the user: one line each. `vectors`: the tree has some. Pure."""
    lines = []
    for one in mentions:
        if not one.name.isupper() or _is_inside(one.value, target, directory, home):
            continue
        where = f" in {one.file}" if one.file else " in the runtime's environment"
        lines.append(f"{one.name}{where}: set it to {new_place(one.kind, one.value, target)} (it is {one.value})")
    named = {one.name for one in mentions}
    if vectors and VECTORS not in named:
        place = new_place(Kind.VECTORS, "", target)
        lines.append(f"{VECTORS}: set it to {place} in the runtime's environment, or it looks in ./data/vector_db")
    if home is not None and target.root != os.path.realpath(f"{home}/.symbiont/data"):
        lines.append(
            f"the runtime keeps its contexts in $HOME/.symbiont/data, whatever its settings say: for {target.root} run "
            "it with another HOME, or set root_data_dir where it is built"
        )
    return lines


# Writing


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file of the user, whole or not at all; a link to it stays one. Mode and owner stay, too."""
    real = os.path.realpath(path)
    with Tree(os.path.dirname(real)).root() as fd:
        name, mode, owner = os.path.basename(real), 0o644, None
        with suppress(FileNotFoundError):
            found = os.lstat(name, dir_fd=fd)
            mode, owner = found.st_mode & 0o7777, (found.st_uid, found.st_gid)
        if owner is None and os.geteuid() == 0:
            above = os.fstat(fd)
            owner = above.st_uid, above.st_gid
        write_atomic(fd, name, content, mode, owner=owner)


def keep_backup(path: Path) -> Path:
    """A copy of a file beside it, as `.bak` (with a number where there is one), with the same mode and owner."""
    real = os.path.realpath(path)
    with Tree(os.path.dirname(real)).root() as fd:
        found = os.lstat(os.path.basename(real), dir_fd=fd)
        content = Path(real).read_bytes()
        name, number = f"{os.path.basename(real)}{_BACKUP}", 0
        while True:
            try:
                existing = os.lstat(name, dir_fd=fd)
            except FileNotFoundError:
                break
            if existing.st_size == len(content) and Path(os.path.dirname(real), name).read_bytes() == content:
                return Path(os.path.dirname(real), name)
            number += 1
            name = f"{os.path.basename(real)}{_BACKUP}-{number}"
        write_atomic(fd, name, content, found.st_mode & 0o7777, owner=(found.st_uid, found.st_gid))
    return Path(os.path.dirname(real), name)


def write_rewritten(files: Sequence[Rewritten], journal: "Journal", now: float) -> list[str | None]:
    """Write settings files, each with a `.bak` of what it was; hand back the names of those.

    The journal knows of each before it is written, so that `migrate --undo` can take it back. Raises OSError,
    UnsafePath or JournalError.
    """
    from symbiont_datad.migrate.records import Config

    backups: list[str | None] = []
    for one in files:
        path = Path(one.path)
        backup = keep_backup(path) if one.before is not None else None
        if one.before is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        before = one.before.encode() if one.before is not None else None
        after = one.after.encode()
        at_ns = path.stat().st_mtime_ns if before is not None else 0
        journal.rewrite(Config(os.path.realpath(path), before, at_ns, after, str(backup) if backup else None), now)
        replace_file(path, after)
        backups.append(str(backup) if backup else None)
    return backups
