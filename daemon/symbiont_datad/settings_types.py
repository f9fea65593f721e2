"""The kinds of values that settings have: how each is read, what is allowed, and how that is said.

A validator raises ValueError with a text that begins with "must"; the loader puts name, value and source in front.
"""

import os
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from symbiont_datad.quantities import Share, format_duration, parse_duration, parse_mode, parse_share, parse_size
from symbiont_datad.report import printable

QUARANTINE = ".quarantine"
"""The directory inside the root that is no part of the layout."""

PREFIX = "SYMBIONT_DATAD_"
"""How the names of environment variables begin that are settings."""

MASK = "**********"
"""What is shown for a secret."""

UNLIMITED = "unlimited"
_LONGEST_S = 100 * 365 * 86_400.0


class Section(BaseModel):
    """A table of `datad.toml`: frozen, and without room for a misspelt key."""

    # Deferred: the settings as a whole build all sections once; each by itself would be built for nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a setting's value is: how it is shown (`kind`), and what people may write (`allowed`)."""

    kind: Literal["duration", "size", "mode", "share", "schedule", "plain"]
    allowed: str


def unit_of(field: FieldInfo) -> Unit:
    """The unit of a field; booleans and choices speak for themselves."""
    found = _unit_in(field.annotation) or next((m for m in field.metadata if isinstance(m, Unit)), None)
    if found:
        return found
    if field.annotation is bool:
        return Unit("plain", "true or false")
    choices = [f'"{choice}"' for choice in get_args(field.annotation)]
    return Unit("plain", ", ".join(choices[:-1]) + f" or {choices[-1]}" if choices else "text")


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's value must never be shown."""
    return _holds_secret(field.annotation)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(arg) for arg in get_args(annotation))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a table, None for one that is a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def tables_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of each table of a field that is a list of tables, None for any other."""
    inner = next(iter(get_args(field.annotation)), None) if get_origin(field.annotation) is tuple else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _unit_in(annotation: Any) -> Unit | None:
    found = [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Unit)]
    if found:
        return found[0]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return next((unit for arg in get_args(annotation) if (unit := _unit_in(arg))), None)
    return None


def home_of(info: ValidationInfo | None = None) -> Path | None:
    """The home directory that `~` stands for: the loader's, or the process's. None when nobody knows it."""
    if info is not None and isinstance(info.context, dict) and "home" in info.context:
        home: Path | None = info.context["home"]
        return home
    text = os.path.expanduser("~")
    return Path(text) if text.startswith("/") else None


def read_text(value: object) -> str:
    """Text that is not empty, has no control characters and can be a file's name."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.strip():
        raise ValueError("must not be empty")
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must not contain NUL or control characters")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError("must be text that a file name can hold") from None
    return value


def read_absolute(value: object, info: ValidationInfo) -> Path:
    """An absolute path; `~` is expanded. `..` is refused, since what it means depends on links."""
    text = read_text(value)
    if text == "~" or text.startswith("~/"):
        home = home_of(info)
        if home is None:
            raise ValueError("must not begin with ~ here, because no home directory is known ($HOME is not set)")
        text = f"{home}{text[1:]}"
    elif text.startswith("~"):
        text = os.path.expanduser(text)
    path = Path("/" + text.lstrip("/")) if text.startswith("/") else Path(text)
    if not path.is_absolute():
        raise ValueError("must be an absolute path, or begin with ~/")
    if ".." in path.parts:
        raise ValueError('must not contain ".."')
    return path


def read_relative(value: object) -> str:
    """A path below the root, as `a/b`: it can't leave the root or name the quarantine."""
    text = read_text(value)
    if text.startswith(("/", "~")):
        raise ValueError("must be relative to the root: it may not be absolute or leave the root")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError('must stay inside the root: ".." is not allowed')
    if QUARANTINE in parts:
        raise ValueError(f'must not be "{QUARANTINE}", which is the quarantine\'s own name')
    if not parts:
        raise ValueError("must name a directory below the root")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise ValueError("must not have a name longer than 255 bytes")
    return "/".join(parts)


def _read_pattern(value: object) -> str:
    text = read_text(value)
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("must be a pattern relative to its directory")
    return text


def read_count(value: object) -> int:
    """A whole number, also as text (environment variables have nothing else)."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,12}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53:
        raise ValueError("must be a whole number")
    return value


def _at_least(least: int, read: Callable[[object], int], unit: str = "") -> Callable[[object], int]:
    def check(value: object) -> int:
        number = read(value)
        if number < least:
            raise ValueError(f"must be at least {least}{unit}")
        return number

    return check


def _lasting(least: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        seconds = parse_duration(value) if not _is_negative(value) else -1.0
        if seconds < least:
            raise ValueError(f"must be at least {format_duration(least)}" if least else "must not be negative")
        if seconds > _LONGEST_S:
            raise ValueError("must be at most 100 years")
        return seconds

    return check


def _is_negative(value: object) -> bool:
    return isinstance(value, int | float) and value < 0 and value == value


def _directory_mode(value: object) -> int:
    mode = parse_mode(value)
    if mode & 0o700 != 0o700:
        raise ValueError(f"must let the owner read, write and enter (at least 0o700){_decimal_hint(value, mode)}")
    return mode


def _file_mode(value: object) -> int:
    mode = parse_mode(value)
    if mode & 0o600 != 0o600:
        raise ValueError(f"must let the owner read and write (at least 0o600){_decimal_hint(value, mode)}")
    return mode


def _decimal_hint(value: object, mode: int) -> str:
    if isinstance(value, int) and re.fullmatch("[0-7]{3,4}", str(value)):
        return f'; the number {value} is 0o{mode:o}: did you mean 0o{value} or "{value}"?'
    return ""


def _unlimited(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == UNLIMITED else value


def _secret(value: SecretStr) -> SecretStr:
    read_text(value.get_secret_value())
    return value


_CRON_FIELDS = ((0, 59, ""), (0, 23, ""), (1, 31, ""), (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
                (0, 7, "sun mon tue wed thu fri sat"))  # fmt: skip


def read_schedule(value: object) -> float | str:
    """Seconds between two runs, or a cron expression of five fields with single spaces between them."""
    if isinstance(value, str) and len(value.split()) == 5 and len(value) <= 200:
        fields = value.lower().split()
        for text, (low, high, names) in zip(fields, _CRON_FIELDS, strict=True):
            if not all(_is_cron_part(part, low, high, names.split()) for part in text.split(",")):
                what = f'"{printable(text)}" is no field from {low} to {high}'
                raise ValueError(f'must be an interval, or cron as "15 3 * * *"; {what}')
        return " ".join(fields)
    try:
        return _lasting(1)(value)
    except ValueError as error:
        if "at least" in str(error) or "at most" in str(error):
            raise
        raise ValueError('must be an interval such as "24h", or cron with five fields as "15 3 * * *"') from None


def _is_cron_part(text: str, low: int, high: int, names: list[str]) -> bool:
    match = re.fullmatch(r"(?:\*|(\w{1,3})(?:-(\w{1,3}))?)(?:/([0-9]{1,2}))?", text)
    if not match or (match[3] is not None and int(match[3]) < 1):
        return False
    ends = [names.index(end) + low if end in names else int(end) if re.fullmatch("[0-9]{1,2}", end) else -1
            for end in match.group(1, 2) if end is not None]  # fmt: skip
    return all(low <= end <= high for end in ends) and ends == sorted(ends)


def _schema(*kinds: str) -> WithJsonSchema:
    return WithJsonSchema({"type": list(kinds) if len(kinds) > 1 else kinds[0]})


Interval = Annotated[float, BeforeValidator(_lasting(1)), _schema("number", "string"),
                     Unit("duration", 'a duration of at least 1 s, as `"5m"` or in seconds')]  # fmt: skip
Delay = Annotated[float, BeforeValidator(_lasting(0)), _schema("number", "string"),
                  Unit("duration", 'a duration, 0 or more, as `"10s"` or in seconds')]  # fmt: skip
Size = Annotated[int, BeforeValidator(_at_least(1, parse_size, " byte")), _schema("integer", "string"),
                 Unit("size", 'a size of at least 1 byte, as `"50MiB"` or in bytes')]  # fmt: skip
Count = Annotated[int, BeforeValidator(_at_least(1, read_count)), _schema("integer"),
                  Unit("plain", "a whole number, 1 or more")]  # fmt: skip
DirectoryMode = Annotated[int, BeforeValidator(_directory_mode), _schema("integer", "string"),
                          Unit("mode", 'a mode with owner rwx, as `0o755` or `"755"`')]  # fmt: skip
FileMode = Annotated[int, BeforeValidator(_file_mode), _schema("integer", "string"),
                     Unit("mode", 'a mode with owner rw, as `0o640` or `"640"`')]  # fmt: skip
PartOfDisk = Annotated[Share, PlainValidator(parse_share), PlainSerializer(str), _schema("integer", "string"),
                       Unit("share", 'a share as `"10%"`, or an amount as `"5GiB"`')]  # fmt: skip
Schedule = Annotated[float | str, PlainValidator(read_schedule), _schema("number", "string"),
                     Unit("schedule", 'an interval as `"24h"`, or cron as `"15 3 * * *"`')]  # fmt: skip
Text = Annotated[str, BeforeValidator(read_text), Unit("plain", "text, not empty")]
AbsolutePath = Annotated[Path, BeforeValidator(read_absolute), Unit("plain", "an absolute path, or `~/…`")]
Patterns = Annotated[tuple[Annotated[str, BeforeValidator(_read_pattern)], ...], Unit("plain", "a list of patterns")]
RelativePath = Annotated[str, BeforeValidator(read_relative), Unit("plain", "a path relative to the root, as `a/b`")]
Secret = Annotated[SecretStr, AfterValidator(_secret), Unit("plain", "text; never shown")]

_NO_LIMIT = BeforeValidator(_unlimited)
AgeLimit = Annotated[Interval | None, _NO_LIMIT, Unit("duration", 'a duration as `"30d"`, or `"unlimited"`')]
SizeLimit = Annotated[Size | None, _NO_LIMIT, Unit("size", 'a size as `"1GiB"`, or `"unlimited"`')]
CountLimit = Annotated[Count | None, _NO_LIMIT, Unit("plain", 'a whole number, 1 or more, or `"unlimited"`')]
