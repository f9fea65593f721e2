"""Finding legacy data: the settings and variables that name old places, the places themselves, and how sure that is.

Only looks. A daemon asks at its start, so nothing large is read: of a directory the names, of settings files the text.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from symbiont_datad.migrate.legacy import (
    PLACES,
    SETTINGS,
    SETTINGS_FILES,
    USER_LOGS,
    UUID,
    VARIABLES,
    Certainty,
    Kind,
    Mention,
    Source,
)
from symbiont_datad.migrate.target import Target

_LARGEST = 4 << 20  # bytes of a settings file
_ENTRIES = 2000  # names of a directory that are looked at, to tell what it is
_UUID_NAME = re.compile(UUID.pattern + r"\.(?:json(?:\.gz)?|(?:json\.)?backup\..*)")
_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that may hold legacy data, how sure that is, and why, for people.

    `problem`: why it can't be migrated; empty if it can.
    """

    source: Source
    certainty: Certainty
    why: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Detected:
    """What was found: the settings that name old places, the places, and settings files that can't be read."""

    mentions: tuple[Mention, ...]
    candidates: tuple[Candidate, ...]
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """The places that a migration takes without being told."""
        return tuple(one.source for one in self.candidates if one.certainty is not Certainty.UNSURE and not one.problem)


def detect(target: Target, directory: str, home: str | None, environ: Mapping[str, str]) -> Detected:
    """Look for legacy data from a working directory, in `~/.symbiont` and where the settings say."""
    user = os.path.join(home, ".symbiont") if home else None
    mentions, unread = find_mentions(directory, user, environ)
    candidates: dict[str, Candidate] = {}

    def add(path: str, kind: Kind, why: str, *, named: bool, names: tuple[str, ...] = ()) -> None:
        found = _candidate(path, kind, why, target, named=named, names=names)
        if found is not None:
            known = candidates.get(found.source.path)
            if known is None or _ORDER[found.certainty] < _ORDER[known.certainty]:
                candidates[found.source.path] = found

    for mention in mentions:
        path = resolved(mention.value, directory, home)
        if path is not None:
            where = f"{mention.name} in {mention.file}" if mention.file else f"${mention.name}"
            add(*_place(path, mention.kind), where, named=True, names=_names(path, mention.kind))
    for legacy in target.legacy:
        add(str(legacy), kind_of(str(legacy)), "migration.legacy", named=True)
    for base in filter(None, (directory, user)):
        for place, kind in PLACES:
            path = os.path.join(base, place)
            add(*_place(path, kind), "the old default", named=False, names=_names(path, kind))
    if user is not None:
        place, names = USER_LOGS
        add(os.path.join(user, place), Kind.LOGS, "logs of the runtime's tools", named=False, names=names)
    return Detected(tuple(mentions), tuple(_apart(candidates.values())), tuple(unread))


def unmigrated(found: Detected, target: Target) -> tuple[Source, ...]:
    """Of the places that surely hold legacy data, those that were not brought over yet."""
    sure = [one.source for one in found.candidates if one.certainty is Certainty.SURE and not one.problem]
    if not sure or not target.journal_path.exists():
        return tuple(sure)
    from symbiont_datad.migrate.journal import Journal
    from symbiont_datad.migrate.records import State

    with Journal(target.journal_path, make=False) as journal:
        complete = {row.at for row in journal.sources() if row.state is State.COMPLETE}
    return tuple(source for source in sure if source.path not in complete)


def _apart(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """A place that holds another one is not taken as a whole: its files would come over twice."""
    found = list(candidates)
    for one in found:
        inner = [other.source.path for other in found if other.source.path.startswith(f"{one.source.path}/")]
        if inner and not one.source.names and not one.problem:
            yield replace(one, problem=f"holds another legacy place, {inner[0]}")
        else:
            yield one


_ORDER = {Certainty.SURE: 0, Certainty.LIKELY: 1, Certainty.UNSURE: 2}


def _place(path: str, kind: Kind) -> tuple[str, Kind]:
    """The directory that a place is, or is in: of logs the settings name the file."""
    return (os.path.dirname(path) if kind is Kind.LOGS else path), kind


def _names(path: str, kind: Kind) -> tuple[str, ...]:
    return (os.path.basename(path), f"{os.path.basename(path)}.*") if kind is Kind.LOGS else ()


def resolved(value: str, directory: str, home: str | None) -> str | None:
    """The absolute path that a setting means for a runtime that works in `directory`; None for what is no path."""
    if not value.strip() or "\0" in value or re.match(r"[a-z][a-z0-9+.-]*://", value):
        return None
    if value == "~" or value.startswith("~/"):
        return os.path.normpath(home + value[1:]) if home else None
    return os.path.normpath(os.path.join(directory, value))


def _candidate(
    path: str, kind: Kind, why: str, target: Target, *, named: bool, names: tuple[str, ...]
) -> Candidate | None:
    real = os.path.realpath(path)
    if not os.path.isdir(real):
        return None
    problem = overlap(real, target)
    if problem and (not named or _is_linked(path, target)):
        return None
    entries = _entries(real)
    if names:
        from fnmatch import fnmatchcase

        if not any(fnmatchcase(entry, name) for entry in entries for name in names):
            return None
        return Candidate(Source(real, kind, names), Certainty.SURE, why, problem)
    if not entries:
        return None
    certainty = Certainty.SURE if looks_like(real, entries) is kind else Certainty.UNSURE
    if certainty is Certainty.UNSURE and named:
        certainty = Certainty.LIKELY
    return Candidate(Source(real, kind), certainty, why, problem)


def overlap(path: str, target: Target) -> str:
    """Why a path without links can't be a source; empty if it can."""
    places = [(target.root, "the data directory"), (os.path.realpath(target.daemon_dir), "the daemon's own directory")]
    if target.repository is not None:
        places.append((os.path.realpath(target.repository), "the snapshot repository"))
    for place, what in places:
        if path == place or _is_same(path, place):
            return f"is {what} itself"
        if f"{path}/".startswith(f"{place}/"):
            return f"lies in {what}" + ("; move it out of there first" if place == target.root else "")
        if f"{place}/".startswith(path.rstrip("/") + "/"):
            return f"holds {what}; name the directory with the legacy data itself"
    if os.path.isfile(f"{path}/config") and os.path.isdir(f"{path}/snapshots") and os.path.isdir(f"{path}/keys"):
        return "is a snapshot repository"
    return ""


def _is_same(one: str, other: str) -> bool:
    """Whether two paths are one directory, as a bind mount makes them."""
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _is_linked(path: str, target: Target) -> bool:
    """Whether a place is a link into the tree already, as `--compat symlink` makes it, or a setting names the tree."""
    return f"{os.path.realpath(path)}/".startswith(f"{target.root}/")


def _entries(path: str) -> list[str]:
    with suppress(OSError), os.scandir(path) as entries:
        return [entry.name for entry in islice(entries, _ENTRIES)]
    return []


def kind_of(path: str) -> Kind:
    """What a directory that somebody named holds; contexts if that can't be told."""
    return looks_like(path, _entries(path)) or Kind.CONTEXTS


def named_sources(path: str) -> list[Source]:
    """What a directory that the user named comes to: itself, or the known ones in it if it is only what holds them."""
    if looks_like(path, _entries(path)) is None:
        inside = []
        for place, kind in PLACES:
            name = place.removeprefix("data/")
            inner = os.path.join(path, name)
            if "/" not in name and os.path.isdir(inner) and looks_like(inner, _entries(inner)) is kind:
                inside.append(Source(inner, kind))
        if inside:
            return inside
    return [Source(path, kind_of(path))]


def looks_like(path: str, entries: Iterable[str]) -> Kind | None:
    """What a directory with these entries holds; None: nothing that is known."""
    names = list(entries)
    if any(name.endswith(".lance") or name == "_versions" for name in names):
        return Kind.VECTORS
    contexts = [name for name in names if _UUID_NAME.fullmatch(name)]
    if contexts or ("archives" in names and os.path.isdir(os.path.join(path, "archives"))):
        backups = sum(".backup." in name for name in contexts)
        return Kind.BACKUPS if contexts and backups == len(contexts) else Kind.CONTEXTS
    if any(name.endswith((".sqlite3", ".faiss", ".hnsw")) for name in names):
        return Kind.VECTORS
    if names and all(name.endswith((".log", ".jsonl")) or ".log." in name for name in names):
        return Kind.LOGS
    return None


# Settings


def find_mentions(
    directory: str, user: str | None, environ: Mapping[str, str]
) -> tuple[list[Mention], list[tuple[str, str]]]:
    """Settings and variables that name old places; and the files that can't be read, with the reason."""
    mentions: list[Mention] = []
    unread: list[tuple[str, str]] = []
    for base in dict.fromkeys(filter(None, (directory, user))):
        for name in SETTINGS_FILES:
            file = os.path.join(base, name)
            try:
                mentions += toml_mentions(file, _text(file))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                unread.append((file, getattr(error, "strerror", None) or str(error)))
        for file in _environment_files(base):
            with suppress(OSError, ValueError):
                mentions += environment_mentions(file, _text(file))
    mentions += [Mention("", name, environ[name], kind) for name, kind in VARIABLES.items() if environ.get(name)]
    return mentions, unread


def _text(file: str) -> str:
    with open(file, "rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("larger than 4 MiB")
    return content.decode("utf-8")


def _environment_files(base: str) -> list[str]:
    names = sorted(name for name in _entries(base) if name == ".env" or name.startswith(".env."))
    return [os.path.join(base, name) for name in names if not name.endswith((".example", ".sample", ".bak"))]


def toml_mentions(file: str, text: str) -> Iterator[Mention]:
    """The settings of a TOML file that name old places. Raises ValueError for what is no TOML."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    for path, kind in SETTINGS.items():
        value: object = document
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and value:
            yield Mention(file, ".".join(path), value, kind)


def environment_mentions(file: str, text: str) -> Iterator[Mention]:
    """The variables of a `.env` file that name old places."""
    for line in text.splitlines():
        match = _ENV_LINE.fullmatch(line)
        if match and match[1] in VARIABLES:
            value = match[2]
            if value[:1] in ("'", '"') and value[:1] in value[1:]:
                value = value[1 : value.index(value[0], 1)]
            else:
                value = re.sub(r"\s+#.*", "", value)
            if value:
                yield Mention(file, match[1], value, VARIABLES[match[1]])


def home_of(environ: Mapping[str, str]) -> str | None:
    """The home directory of the process, None when nobody knows it."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return home if home.startswith("/") else None
