"""Settings that are good alone and bad together."""

import os
from collections.abc import Iterator
from pathlib import Path

from symbiont_datad.quantities import Share
from symbiont_datad.settings import CATEGORIES, Conflict, FilePersistenceConfig, Settings, dotted
from symbiont_datad.settings_retention import RetentionPolicy, WaterMarks
from symbiont_datad.settings_sections import is_loopback, overlap


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """What is wrong between the settings of several sections. Looks at links on disk and changes nothing."""
    yield from _directories(settings)
    yield from _names(settings)
    yield from _neighbours(settings)
    yield from _extra_roots(settings)
    yield from _marks(("limits",), settings.limits)
    yield from _marks(("limits", "inodes"), settings.limits.inodes)
    http = settings.http
    if http.listen and not is_loopback(http.listen) and http.token_file is None and http.token is None:
        names = (("http", "listen"), ("http", "token_file"), ("http", "token"))
        yield Conflict(names, "must be a loopback address such as 127.0.0.1, unless http.token_file is set")


def _directories(settings: Settings) -> Iterator[Conflict]:
    built_in = _built_in(settings)
    extra = [directory.path for directory in settings.layout.directory]
    declared = built_in.union(extra)
    for index, path in enumerate(extra):
        name = ("layout", "directory", index, "path")
        parent = path.rpartition("/")[0]
        if path in built_in:
            yield Conflict((name,), "must not be a directory that is built in")
        elif path in extra[:index]:
            yield Conflict((name,), "must not be declared twice")
        elif parent and parent not in declared:
            yield Conflict((name,), f'must have a parent in the layout: declare "{parent}" too')


def _names(settings: Settings) -> Iterator[Conflict]:
    """Tables whose keys name directories."""
    extra = {directory.path: directory for directory in settings.layout.directory}
    declared = {".", *_built_in(settings), *extra}
    for path in settings.permissions:
        if path not in declared:
            yield Conflict((("permissions", path), ("layout", "directory")), "must name a directory of the layout")
    yield from _rules(settings, declared)
    if settings.retention.history.pack_after is not None and not settings.retention.history.whole:
        names = (("retention", "history", "pack_after"), ("retention", "history", "whole"))
        yield Conflict(names, "must be unset, unless retention.history.whole is true: a day is packed as a whole")


def _rules(settings: Settings, declared: set[str]) -> Iterator[Conflict]:
    """The tables of `[retention]` that have names of their own."""
    extra = {directory.path: directory for directory in settings.layout.directory}
    whole = {**{path: path for path in extra}, **_standing_rules(settings)}
    for name, policy in settings.retention.named.items():
        at: tuple[str, ...] = ("retention", name)
        path = policy.directory or name
        if policy.directory is None and path not in declared:
            text = 'must be "cache", "history", "sessions", "archives", "logs", a directory of the layout, or have one'
            yield Conflict((at, ("layout", "directory")), f"{text}: directory = …")
        elif (kept := _kept_by(settings, path)) is not None:
            named = (*at, "directory") if policy.directory else at
            yield Conflict((named, (kept,)), f'must not be about "{path}": no rule removes anything there')
        elif not policy.patterns and not (policy.directory is None and name in extra):
            other = whole.setdefault(path, name)
            if other != name:
                text = f'must have patterns, because {dotted(("retention", other))} is about all of "{path}"'
                yield Conflict((at, ("retention", other)), text)
    for name in settings.retention.named.keys() & extra.keys():
        here, there = settings.retention.named[name], extra[name]
        for limit in RetentionPolicy.model_fields:
            both = here.directory is None and {limit} <= here.model_fields_set & there.model_fields_set
            if both and getattr(here, limit) != getattr(there, limit):
                names = (("retention", name, limit), ("layout", "directory"))
                yield Conflict(names, "must not differ from the same limit in its [[layout.directory]]")


def _standing_rules(settings: Settings) -> dict[str, str]:
    """The directories that always have a rule, and the names of those."""
    return {
        f"{settings.prompts_dir}/cache": "cache",
        f"{settings.prompts_dir}/history": "history",
        f"{settings.state_dir}/sessions": "sessions",
        f"{settings.state_dir}/agents/archives": "archives",
        settings.logs_dir: "logs",
    }


def _kept_by(settings: Settings, path: str) -> str | None:
    """The setting that names the category whose files no rule may be about, if the path is in it or above it.

    Contexts are never removed, and the files of a collection belong together.
    """
    state = settings.state_dir
    if f"{path}/".startswith((f"{state}/agents/archives/", f"{state}/sessions/")):
        return None
    for name in ("state_dir", "vector_db_dir"):
        top = getattr(settings, name)
        if f"{path}/".startswith(f"{top}/") or f"{top}/".startswith(f"{path}/"):
            return name
    return None


def _built_in(settings: Settings) -> set[str]:
    # The runtime makes the archives when it needs them; they are not created, and yet they are the layout's.
    return {*settings.built_in_directories(), f"{settings.state_dir}/agents/archives"}


def _neighbours(settings: Settings) -> Iterator[Conflict]:
    root, repository = settings.root_data_dir, settings.repository_path()
    if overlap(settings.daemon_dir, root):
        yield Conflict((("daemon_dir",), ("root_data_dir",)), f"must be outside the root ({root}) and not hold it")
    yield from _secrets(settings, root, repository)
    textfile = settings.metrics.textfile
    if textfile is not None and overlap(textfile, root):
        yield Conflict((("metrics", "textfile"), ("root_data_dir",)), f"must be outside the root ({root})")
    if repository is None:
        return
    if overlap(repository, root):
        names = (("backup", "repository"), ("root_data_dir",))
        yield Conflict(names, f"must be outside the root ({root}) and not hold it")
    if overlap(repository, settings.daemon_dir) and not overlap(settings.daemon_dir, root):
        text = f"must not overlap daemon_dir ({settings.daemon_dir})"
        yield Conflict((("backup", "repository"), ("daemon_dir",)), text)


def _extra_roots(settings: Settings) -> Iterator[Conflict]:
    """Roots of vector databases outside the tree: what is in them is backed up, so they hold nothing of ours."""
    name = ("vector_db", "extra_roots")
    roots = settings.vector_db.extra_roots
    for number, root in enumerate(roots):
        here = (*name, number)
        for other, path in (
            (("root_data_dir",), settings.root_data_dir),
            (("daemon_dir",), settings.daemon_dir),
            (("backup", "repository"), settings.repository_path()),
        ):
            if path is not None and overlap(root, path):
                yield Conflict((here, other), f"must not overlap {dotted(other)} ({path})")
        if any(overlap(root, before) for before in roots[:number]):
            yield Conflict((here,), "must not overlap another one of them")


def _secrets(settings: Settings, root: Path, repository: Path | None) -> Iterator[Conflict]:
    """Files whose content opens the snapshots: they protect nothing beside those, and in the tree agents read them."""
    files = {("encryption", "key_file"): settings.encryption.key_file}
    if settings.backup.password_file is not None:
        files["backup", "password_file"] = settings.backup.password_file
    for name, file in files.items():
        if overlap(file, root):
            yield Conflict((name, ("root_data_dir",)), f"must be outside the root ({root})")
        if repository is not None and overlap(file, repository):
            yield Conflict((name, ("backup", "repository")), f"must be outside the repository ({repository})")


def _marks(section: tuple[str, ...], marks: WaterMarks) -> Iterator[Conflict]:
    high, low = marks.high_water, marks.low_water
    names = ((*section, "high_water"), (*section, "low_water"))
    if (high.percent is None) != (low.percent is None):
        text = f"must be of the same form as {dotted(names[1])}, which is {low}: two percentages or two amounts"
        yield Conflict(names, text)
    elif _size(high) >= _size(low):
        yield Conflict(names, f"must be less than {dotted(names[1])}, which is {low}")


def _size(share: Share) -> float:
    return share.percent if share.percent is not None else share.of(0)


def links_out(settings: FilePersistenceConfig) -> Iterator[Conflict]:
    """Categories that lead out of the root through a link that is there.

    A link that replaced a directory of the layout under its default name is drift, and the guard's to repair.
    """
    root = settings.root_data_dir
    real = Path(os.path.realpath(root))
    for category in CATEGORIES:
        name = f"{category}_dir"
        path: str = getattr(settings, name)
        steps = path.split("/")
        if path == FilePersistenceConfig.model_fields[name].default:
            steps = steps[:-1]
        at = root
        for step in steps:
            at = at / step
            target = Path(os.path.realpath(at))
            if at.is_symlink() and real not in target.parents:
                yield Conflict(((name,), ("root_data_dir",)), f"must stay inside the root: {at} is a link to {target}")
                break
