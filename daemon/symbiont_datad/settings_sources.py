"""Where settings come from: command line, environment, `datad.toml`, credentials, defaults.

Each source becomes a flat mapping from a name in parts to a raw value; the first source that has a name wins. Keys
that no model declares are found here, values are judged by the models, and every problem becomes one line.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from symbiont_datad.errors import SettingsError
from symbiont_datad.report import printable
from symbiont_datad.settings import Conflict, Loaded, Name, Settings, dotted, leaves, undotted
from symbiont_datad.settings_conflicts import links_out
from symbiont_datad.settings_places import (
    CONFIG_VARIABLE,
    PREFIX,
    RUN_SECRETS,
    SYSTEM_FILE,
    content_of,
    home_directory,
    secret_directories,
    state_directory,
    usual_files,
)
from symbiont_datad.settings_retention import NamedPolicy, Retention
from symbiont_datad.settings_types import MASK, is_secret, section_of, tables_of, unit_of

Path_ = tuple[str, ...]


class _Sources:
    """Collects raw values and problems, the winning source first."""

    def __init__(self) -> None:
        self.values: dict[Path_, object] = {}
        self.origins: dict[Path_, str] = {}
        self.problems: list[str] = []

    def add(self, given: Mapping[str, object], origin: str) -> None:
        self._add(Settings, given, (), origin)

    def _add(self, model: type[BaseModel], given: Mapping[str, object], prefix: Path_, origin: str) -> None:
        for key, value in given.items():
            path = (*prefix, key)
            field = model.model_fields.get(key)
            if field is None and model is not Retention:
                self.problem(path, origin, _unknown(path))
                continue
            section = section_of(field) if field is not None else NamedPolicy
            if section is None and path != ("permissions",):
                self._keep(path, value, origin)
            elif not isinstance(value, Mapping):
                self.problem(path, origin, "must be a table")
            elif section is not None:
                self._add(section, value, path, origin)
            else:
                for inner, mode in value.items():
                    self._keep((*path, inner), mode, origin)

    def _keep(self, path: Path_, value: object, origin: str) -> None:
        if path not in self.values:
            self.values[path], self.origins[path] = value, origin

    def problem(self, path: Path_, origin: str, text: str) -> None:
        self.problems.append(f"{dotted(path)} (from {origin}): {text}")


def read(config_file: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str]) -> Loaded:
    """See `settings.load`."""
    sources = _Sources()
    home = home_directory(environ)
    for name, value in overrides.items():
        if value is not None:
            _add_override(sources, name, value)
    _add_variables(sources, environ)
    file = _add_file(sources, config_file, environ, home)
    for directory in secret_directories(environ, RUN_SECRETS):
        _add_credentials(sources, directory)
    settings = _validate(sources, state_directory(environ), home)
    if settings is None or sources.problems:
        raise SettingsError("\n".join(dict.fromkeys(printable(problem) for problem in sources.problems)))
    origins = {leaf.name: _origin(sources, leaf.path) for leaf in leaves(settings)}
    return Loaded(settings, origins, file)


def _add_override(sources: _Sources, name: str, value: object) -> None:
    try:
        path = undotted(name)
    except ValueError:
        sources.problems.append(f"{name!r} (from command line): is not the name of a setting")
        return
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    sources.add(value, "command line")


def _add_variables(sources: _Sources, environ: Mapping[str, str]) -> None:
    given = {n: v for n, v in environ.items() if n.upper().startswith(PREFIX) and n.upper() != CONFIG_VARIABLE}
    # The longest name first: GUARD__WATCH is more exact than GUARD, which holds a whole table as JSON.
    for name in sorted(given, key=lambda name: (-len(name.split("__")), name)):
        _add_variable(sources, name, given[name], f"environment {name}")


def _add_variable(sources: _Sources, name: str, value: str, origin: str) -> None:
    from symbiont_datad.settings_variables import BadVariable, Variables  # 20 ms, for those who set any

    path = tuple(name[len(PREFIX) :].lower().split("__"))
    if not _is_text(name):
        sources.problems.append(f"{printable(name)} (from environment): is not the name of a setting")
        return
    try:
        nested = Variables({name: value})()
        if value.lstrip()[:1] in ("[", "{") and not _is_text(json.dumps(nested, ensure_ascii=False)):
            raise BadVariable  # JSON is UTF-8, names of settings are text
    except (BadVariable, RecursionError):
        sources.problem(path, origin, "must be valid JSON when it begins with [ or {")
        return
    if nested:
        sources.add(nested, origin)
    else:
        sources.problem(path, origin, _unknown(path))


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: bytes of the environment that are none come as lone surrogates (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _add_file(
    sources: _Sources, config_file: Path | None, environ: Mapping[str, str], home: Path | None
) -> Path | None:
    if config_file is None and (named := environ.get(CONFIG_VARIABLE)) is not None:
        try:
            config_file = Path(home, named[2:]) if home and named.startswith("~/") else Path(named)
            if not named.strip() or "\0" in named:
                raise ValueError
        except ValueError:
            sources.problems.append(f"{CONFIG_VARIABLE} (from environment): must be the path of a file")
            return None
    if config_file is not None:
        return config_file if _add_toml(sources, config_file, required=True) else None
    for candidate in usual_files(home, SYSTEM_FILE):
        if _add_toml(sources, candidate, required=False):
            return candidate
    return None


def _add_toml(sources: _Sources, file: Path, required: bool) -> bool:
    """Whether there is such a file; what is wrong with it is kept as a problem."""
    try:
        content = content_of(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        if required:
            sources.problems.append(f"{file}: can't be read: {error.strerror}")
        return False
    except (OSError, ValueError) as error:
        sources.problems.append(f"{file}: can't be read: {getattr(error, 'strerror', None) or error}")
        return True
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        head = content[: error.start]
        column = error.start - head.rfind(b"\n")
        where = f"line {head.count(bytes([10])) + 1}, column {column}"
        sources.problems.append(f"{file}, {where}: is not UTF-8")
        return True
    try:
        sources.add(tomllib.loads(text), str(file))
    except RecursionError:
        sources.problems.append(f"{file}: is nested too deeply")
    except ValueError as error:
        sources.problems.append(_syntax_problem(file, text, str(error)))
    return True


def _syntax_problem(file: Path, text: str, error: str) -> str:
    if match := re.search(r" \(at line (\d+), column (\d+)\)$", error):
        line, column, error = int(match[1]), int(match[2]), error[: match.start()]
    else:
        lines = text.splitlines() or [""]
        line, column, error = len(lines), len(lines[-1]) + 1, error.removesuffix(" (at end of document)")
    return f"{file}, line {line}, column {column}: {error}"


def _add_credentials(sources: _Sources, directory: Path) -> None:
    try:
        files = sorted(path for path in directory.iterdir() if path.name.upper().startswith(PREFIX))
    except OSError:
        return
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                continue
            value = content_of(file).decode("utf-8").strip("\r\n")
        except (OSError, ValueError) as error:
            # A decoding error quotes the content.
            text = error.strerror if isinstance(error, OSError) else "it is not UTF-8, or too large"
            sources.problems.append(f"{file}: can't be read: {text}")
            continue
        _add_variable(sources, file.name, value, f"credential {file}")


def _validate(sources: _Sources, state: Path | None, home: Path | None) -> Settings | None:
    """The settings, or None after the problems were kept. A bad value is set aside, so that all are found at once."""
    values, set_aside = dict(sources.values), set[Path_]()
    if state is not None:
        values.setdefault(("daemon_dir",), state / "datad")
        values.setdefault(("backup", "repository"), str(state / "backups"))
    while True:
        try:
            settings = Settings.model_validate(_nested(values), context={"home": home})
        except ValidationError as error:
            bad = set[Path_]()
            for detail in error.errors(include_url=False):
                if detail["type"] == "conflicts":
                    _add_conflicts(sources, detail["ctx"]["conflicts"], set_aside)
                elif detail["type"] != "default_factory_not_called":
                    path = _given_path(detail["loc"], values)
                    bad.add(path)
                    sources.problems.append(_value_problem(sources, detail["loc"], path, detail))
            if not bad or not bad & values.keys():
                return None
            for path in bad & values.keys():
                del values[path]
                set_aside.add(path)
        else:
            _add_conflicts(sources, list(links_out(settings)), set_aside)
            return settings


def _nested(values: Mapping[Path_, object]) -> dict[str, Any]:
    # Every section is there, so that its defaults are validated with the loader's home directory.
    nested: dict[str, Any] = {name: {} for name, field in Settings.model_fields.items() if section_of(field)}
    for path, value in values.items():
        at = nested
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value
    return nested


def _given_path(loc: Name, values: Mapping[Path_, object]) -> Path_:
    path = tuple(str(part) for part in loc)
    return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in values), path)


def _add_conflicts(sources: _Sources, found: list[Conflict], set_aside: set[Path_]) -> None:
    for conflict in found:
        if not any(name[: len(bad)] == bad for name in conflict.names for bad in set_aside):
            path = _given_path(conflict.names[0], sources.values)
            sources.problems.append(_line(sources, conflict.names[0], path, conflict.text))


_TEXTS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "tuple_type": 'must be a list (as JSON in the environment: ["a", "b"])',
    "string_type": "must be text",
    "missing": "must be set",
}


def _value_problem(sources: _Sources, loc: Name, path: Path_, detail: Any) -> str:
    kind = detail["type"]
    if kind == "value_error":
        text = str(detail["ctx"]["error"])
    elif kind == "literal_error":
        text = f"must be one of {detail['ctx']['expected']}"
    elif kind == "extra_forbidden":
        field = _field_at(path)
        model = (tables_of(field) if field is not None else None) or Settings
        return f"{dotted(loc)} (from {_origin(sources, path)}): {_unknown(tuple(map(str, loc)), model)}"
    else:
        text = _TEXTS.get(kind) or re.sub("^Input should", "must", detail["msg"])
    return _line(sources, loc, path, text)


def _line(sources: _Sources, loc: Name, path: Path_, text: str) -> str:
    value: Any = sources.values.get(path)
    for part in loc[len(path) :]:
        try:
            value = value[part]
        except (LookupError, TypeError):
            value = None
    shown = "" if value is None else f" = {_shown(value, loc)}"
    return f"{dotted(loc)}{shown} (from {_origin(sources, path)}): {text}"


def _shown(value: object, loc: Name) -> str:
    field = _field_at(tuple(part for part in loc if isinstance(part, str)))
    if field is not None and is_secret(field):
        return MASK
    if isinstance(value, int) and not isinstance(value, bool):
        octal = field is not None and unit_of(field).kind == "mode" and value >= 0
        text = f"0o{value:o}" if octal or value.bit_length() > 4096 else str(value)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str | os.PathLike):
        text = '"' + re.sub(r"(?<=://)[^/\s]*@", f"{MASK}@", os.fspath(value)) + '"'
    elif isinstance(value, Mapping | list):
        return "{…}" if isinstance(value, Mapping) else "[…]"
    else:
        text = str(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _field_at(path: Path_) -> FieldInfo | None:
    model: type[BaseModel] | None = Settings
    field = None
    for key in path:
        if model is None:
            break
        field = model.model_fields.get(key)
        if field is None:
            model = NamedPolicy if model is Retention else None
        else:
            model = section_of(field) or tables_of(field)
    return field


def _origin(sources: _Sources, path: Path_) -> str:
    if path in sources.origins:
        return sources.origins[path]
    # A table has the origin of what is set in it.
    return next((origin for inner, origin in sources.origins.items() if inner[: len(path)] == path), "default")


def known_names(model: type[BaseModel] = Settings, prefix: Path_ = ()) -> Iterator[str]:
    """The dotted names of all sections and settings."""
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        yield dotted(path)
        if section := section_of(field):
            yield from known_names(section, path)


def _unknown(path: Path_, model: type[BaseModel] = Settings) -> str:
    import difflib

    name = path[-1] if model is not Settings else dotted(path)
    near = difflib.get_close_matches(name[:200], list(known_names(model)), 1, 0.7)
    return f"is not a setting; did you mean {near[0]}?" if near else "is not a setting"
