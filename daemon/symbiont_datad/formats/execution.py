"""The record of one executed prompt, as far as it can be understood: nobody has declared what is in it."""

import zlib
from typing import Any, NamedTuple

import msgspec

LARGEST = 1 << 20
"""Bytes of a record that is read; of a larger one only its size is known."""

_GZIP = b"\x1f\x8b"
_LONGEST = 100  # characters of a template's name
_DAY_MS = 86_400_000.0
_UNITS = (
    ("latency_ms", 1.0), ("duration_ms", 1.0), ("elapsed_ms", 1.0), ("execution_time_ms", 1.0),
    ("latency_s", 1000.0), ("duration_s", 1000.0), ("elapsed_s", 1000.0), ("latency_seconds", 1000.0),
    ("duration_seconds", 1000.0), ("latency", None), ("duration", None), ("elapsed", None),
)  # fmt: skip
"""Fields that hold a latency, with the milliseconds that one of their units is. Without a unit, a number could be
anything: only a Duration as the runtime writes it, with `secs` and `nanos`, is taken."""


class Execution(NamedTuple):
    """What a record tells. `template` is empty when it names none; `latency_ms` is None when it has none."""

    template: str = ""
    latency_ms: float | None = None


class _Record(msgspec.Struct):
    """The fields that are looked for, whatever they hold; all others are passed over."""

    template: Any = None
    template_name: Any = None
    template_id: Any = None
    prompt_template: Any = None
    latency_ms: Any = None
    duration_ms: Any = None
    elapsed_ms: Any = None
    execution_time_ms: Any = None
    latency_s: Any = None
    duration_s: Any = None
    elapsed_s: Any = None
    latency_seconds: Any = None
    duration_seconds: Any = None
    latency: Any = None
    duration: Any = None
    elapsed: Any = None
    metadata: Any = None


_decoder = msgspec.json.Decoder(_Record)


def read_execution(data: bytes) -> Execution:
    """What a record (JSON, or gzip of it) tells. Never raises, whatever is in it."""
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(31).decompress(data, LARGEST)
        except zlib.error:
            return Execution()
    try:
        record = _decoder.decode(data)
        inner = record.metadata
        further = msgspec.convert(inner, _Record) if isinstance(inner, dict) else _Record()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Execution()
    latency = _latency_ms(record)
    return Execution(_template(record) or _template(further), _latency_ms(further) if latency is None else latency)


def _template(record: _Record) -> str:
    for value in (record.template, record.template_name, record.template_id, record.prompt_template):
        if isinstance(value, dict):
            value = value.get("name") or value.get("id")
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_LONGEST]
    return ""


def _latency_ms(record: _Record) -> float | None:
    for name, unit in _UNITS:
        value = getattr(record, name)
        if unit is None and isinstance(value, dict):
            value, unit = _duration(value), 1000.0
        if unit is not None and isinstance(value, int | float) and not isinstance(value, bool):
            latency = value * unit
            if 0 <= latency <= _DAY_MS:  # also refuses NaN
                return float(latency)
    return None


def _duration(value: dict[Any, Any]) -> float | None:
    secs, nanos = value.get("secs"), value.get("nanos", 0)
    return secs + nanos / 1e9 if isinstance(secs, int) and isinstance(nanos, int) else None
