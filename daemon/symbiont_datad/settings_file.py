"""Settings as text: a commented `datad.toml`, and values as people write them."""

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from symbiont_datad.quantities import Share, spell_duration, spell_size
from symbiont_datad.report import octal
from symbiont_datad.settings import Settings, dotted
from symbiont_datad.settings_retention import NamedPolicy
from symbiont_datad.settings_types import MASK, section_of, tables_of, unit_of


@dataclass(frozen=True, slots=True)
class Table:
    """A table of `datad.toml`: its header ("" is the top level), its settings, and where they are in `Settings`."""

    header: str
    path: tuple[str, ...]
    model: type[BaseModel]
    about: str
    example: Any = None
    """Of repeated tables: a list of one."""

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """The settings of the table itself, without its inner tables."""
        return {
            name: field
            for name, field in self.model.model_fields.items()
            if section_of(field) is None and tables_of(field) is None and name != "permissions"
        }

    @property
    def repeated(self) -> bool:
        """Whether a file may have many such tables."""
        return self.header.startswith("[[")


def tables() -> Iterator[Table]:
    """Every table that has settings, in the order of the file. Those of any name are called by an example's name."""
    yield Table("", (), Settings, "The data directory itself.")
    yield from _inner(Settings, ())
    rule = (
        "One more rule, of any name: what goes from `directory`, or from the directory of the layout that it is named "
        "after (the limits of a `[[layout.directory]]` may as well stand in that table). A file is the business of one "
        "rule: of the one with the deepest directory, and there of the first whose patterns it matches."
    )
    yield Table("[retention.reports]", ("retention", "NAME"), NamedPolicy, rule)
    yield from _repeated(Settings, ())


def _inner(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Table]:
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is not None and name != "layout":
            inner = (*path, name)
            about = field.description or section.__doc__ or ""
            yield Table(f"[{dotted(inner)}]", inner, section, about)
            yield from _inner(section, inner)


def _repeated(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Table]:
    for name, field in model.model_fields.items():
        inner, section, one = (*path, name), section_of(field), tables_of(field)
        if section is not None:
            yield from _repeated(section, inner)
        elif one is not None:
            yield Table(f"[[{dotted(inner)}]]", inner, one, one.__doc__ or "", (field.examples or [None])[0])


def plain(value: object, field: FieldInfo) -> Any:
    """A value for JSON: durations in seconds, sizes in bytes, modes and shares as text, secrets masked."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, BaseModel):
        inner = type(value).model_fields
        return {name: plain(getattr(value, name), inner[name]) for name in inner if getattr(value, name) is not None}
    if isinstance(value, tuple):
        return [plain(item, field) for item in value]
    if isinstance(value, Share | os.PathLike):
        return str(value)
    return octal(value) if unit_of(field).kind == "mode" and isinstance(value, int) else value


def spelled(value: object, field: FieldInfo) -> str:
    """A value as it would stand in `datad.toml`: `"50MiB"`, `"7d"`, `0o755`. None is "unset", a secret masked."""
    unit = unit_of(field)
    if value is None:
        return "unset"
    if unit.kind in ("duration", "schedule") and isinstance(value, int | float):
        return f'"{spell_duration(value)}"'
    if unit.kind == "size" and isinstance(value, int):
        text = spell_size(value)
        return text if text.isdigit() else f'"{text}"'
    value = plain(value, field)
    if unit.kind == "mode" and isinstance(value, str):
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{dotted((key,))} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # A TOML string has JSON's escapes, and control characters are in no setting.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def default_of(field: FieldInfo) -> str:
    """A setting's default as text for documents: as in `datad.toml`, "unset", or what it is derived from."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "derived" in extra:
        return str(extra["derived"])
    if field.is_required():
        return "required"
    return "unset" if field.default is None else f"`{spelled(field.default, field)}`"


def example_toml(settings: Settings) -> str:
    """A `datad.toml` with every setting, its description and default, commented out except `root_data_dir`.

    Lines of text begin with `# `, settings and tables that may be taken in with `#` alone. Taken in all together they
    are good settings as well: a setting that is unset by default shows an example.
    """
    lines = [
        "# Settings of symbiont-datad. A setting that is commented out has the value that is shown, unless it says so.",
        "# `symbiont-datad config check` tells whether the file is good, `config show` what is in force.",
    ]
    for table in tables():
        if table.header:
            optional = table.repeated or table.path[-1] == "NAME"
            lines += ["", "", *_comment(table.about), ("#" if optional else "") + table.header]
        for name, field in table.fields.items():
            lines += ["", *_setting(name, field, settings if not table.path else None)]
        if not table.path:
            field = Settings.model_fields["permissions"]
            lines += ["", "", *_comment(field.description or ""), "[permissions]", '#"logs/audit" = 0o750']
    return "\n".join(lines) + "\n"


def _setting(name: str, field: FieldInfo, top: Settings | None) -> list[str]:
    example = field.examples[0] if field.examples else None
    if top is not None and name in ("root_data_dir", "daemon_dir"):
        value = spelled(getattr(top, name), field)
    else:
        value = spelled(example if field.default is None or field.is_required() else field.default, field)
    unset = " Unset by default; this is an example." if field.default is None else ""
    text = _comment(f"{field.description} {_sentence(unit_of(field).allowed)}{unset}")
    return [*text, f"{'' if name == 'root_data_dir' else '#'}{name} = {value}"]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 110, initial_indent="# ", subsequent_indent="# ")
