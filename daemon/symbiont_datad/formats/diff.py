"""How two versions of a file differ, in a form that people can read. Pure: bytes in, lines out.

Two JSON documents are compared value by value, because a context is one long document in which a few values change;
texts line by line; of anything else the sizes and hashes are told. gzip is opened. What is shown has no control
characters in it, and the time that a comparison takes grows with the size of the files, not with its square.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from io import BytesIO
from itertools import zip_longest
from typing import Any

import msgspec

from symbiont_datad.formats.matching import Matching, Range, common, equal_ends, rising
from symbiont_datad.report import printable

LARGEST = 64 << 20
"""Bytes up to which content is read; a small gzip file may hold any number."""

_GZIP = b"\x1f\x8b"
_LONGEST = 160  # characters of a value that are shown in a line
_LEAD = 40  # of them before the first difference
_PLAIN_KEY = re.compile(r"[\w-]+")
_NOTHING = msgspec.UNSET

# A number with a fraction or an exponent is kept as it is written: 1.0 is no 1, and 1.10 no 1.1.
_decoder = msgspec.json.Decoder(float_hook=msgspec.Raw)
_canonical = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Readable:
    """Content that was opened. `text` is None when it can't be shown, and `why` then says why."""

    text: str | None
    """JSON is pretty-printed, its keys and numbers as they are in the file."""
    document: Any = None
    """The value of a JSON object or array, else None. Numbers with a fraction or an exponent are `msgspec.Raw`."""
    why: str = ""


class ChangeKind(StrEnum):
    """What happened to a value."""

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One value in which two documents differ: `memory.short_term[3].content`. The path of the whole is empty.

    `before` and `after` are JSON as it is written in the documents; None where the value is not there. An index counts
    in the newer list, that of a removed item in the older one. An item that changed its place was removed and added.
    """

    path: str
    kind: ChangeKind
    before: str | None
    after: str | None

    def record(self) -> dict[str, object]:
        """The change as an object of plain values."""
        values = [None if text is None else msgspec.json.decode(text) for text in (self.before, self.after)]
        return {"path": self.path, "kind": self.kind.value, "before": values[0], "after": values[1]}


def readable(data: bytes) -> Readable:
    """Open the content of a file: gzip unpacked, JSON formatted, text decoded. Never raises, whatever is in it."""
    if data.startswith(_GZIP):
        try:
            with gzip.open(BytesIO(data)) as file:
                data = file.read(LARGEST + 1)
        except (OSError, EOFError, zlib.error):
            return Readable(None, why="damaged gzip")
    if len(data) > LARGEST:
        return Readable(None, why=f"more than {LARGEST >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Readable(None, why="binary")
    if "\0" in text:
        return Readable(None, why="binary")
    if data.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        try:
            return Readable(msgspec.json.format(data, indent=2).decode(), _decoder.decode(data))
        except (ValueError, RecursionError):  # it only begins like JSON, or is nested too deep
            pass
    return Readable(text)


def changes(a: bytes, b: bytes) -> list[Change] | None:
    """The values in which two JSON documents differ; None when the two can't be compared so."""
    return _changes(readable(a), readable(b))


def difference(a: bytes, b: bytes, name_a: str, name_b: str, context: int = 3) -> Iterator[str]:
    """The differences between two versions of a file as lines without their newline; none when they are equal.

    `context`: how many equal lines are shown around those of a text that differ.
    """
    if a == b:
        return
    one, two = readable(a), readable(b)
    if one.text is None or two.text is None:
        why = " and ".join(dict.fromkeys(side.why for side in (one, two) if side.why))
        yield f"{_summary(name_a, a)} and {_summary(name_b, b)} differ ({why})"
        return
    found = _changes(one, two)
    if found == [] or one.text == two.text:
        yield f"{_summary(name_a, a)} and {_summary(name_b, b)} have the same content, written in different ways"
        return
    yield f"--- {printable(name_a)}"
    yield f"+++ {printable(name_b)}"
    if found is None:
        yield from _unified(_lines(one.text), _lines(two.text), context)
    else:
        yield from map(_line, found)


def _summary(name: str, data: bytes) -> str:
    return f"{printable(name)} ({len(data)} bytes, SHA-256 {sha256(data).hexdigest()})"


# JSON


def _changes(one: Readable, two: Readable) -> list[Change] | None:
    if one.document is None or two.document is None:
        return None
    try:
        return list(_walk(one.document, two.document))
    except RecursionError:
        return None


def _walk(a: Any, b: Any) -> Iterator[Change]:
    """Go down where the two differ, in the order of the document."""
    left, matching = [("", a, b)], Matching()
    while left:
        path, a, b = left.pop()
        if _same(a, b):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [*a, *(key for key in b if key not in a)]
            left += reversed([(_below(path, key), a.get(key, _NOTHING), b.get(key, _NOTHING)) for key in keys])
        elif isinstance(a, list) and isinstance(b, list):
            left += reversed([(f"{path}[{index}]", one, two) for index, one, two in _items(a, b, matching)])
        elif a is _NOTHING:
            yield Change(path, ChangeKind.ADDED, None, _json(b))
        elif b is _NOTHING:
            yield Change(path, ChangeKind.REMOVED, _json(a), None)
        else:
            yield Change(path, ChangeKind.CHANGED, _json(a), _json(b))


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same in JSON. To Python True is 1, so what it finds equal is looked at once more."""
    if type(a) is not type(b) or a != b:
        return False
    return not isinstance(a, dict | list) or bool(_canonical(a) == _canonical(b))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _below(path: str, key: str) -> str:
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{_json(key)}]"


def _items(a: list[Any], b: list[Any], matching: Matching) -> list[tuple[int, Any, Any]]:
    """The items of two lists in pairs, with an index; what is only in one of them has no partner."""
    ids_a, ids_b = _ids(a), _ids(b)
    if ids_a and ids_b:
        return _items_by_id(a, b, ids_a, ids_b)
    start, end = equal_ends(a, b)
    if not (_same(a[:start], b[:start]) and _same(a[len(a) - end :], b[len(b) - end :])):
        start = end = 0
    one, two = a[start : len(a) - end], b[start : len(b) - end]
    pairs: list[tuple[int, Any, Any]] = []
    for i1, i2, j1, j2 in matching.ranges([_canonical(item) for item in one], [_canonical(item) for item in two]):
        for i, j in zip_longest(range(i1, i2), range(j1, j2)):
            before, after = _NOTHING if i is None else one[i], _NOTHING if j is None else two[j]
            pairs.append((start + (i if j is None else j), before, after))
    return pairs


def _ids(items: list[Any]) -> dict[object, int] | None:
    """Where each item of the list is, by its `id`; None when one has none, or two have the same."""
    ids: dict[object, int] = {}
    for index, item in enumerate(items):
        found = item.get("id") if isinstance(item, dict) else None
        if type(found) not in (str, int) or found in ids:
            return None
        ids[found] = index
    return ids


def _items_by_id(
    a: list[Any], b: list[Any], ids_a: dict[object, int], ids_b: dict[object, int]
) -> list[tuple[int, Any, Any]]:
    common = [(index, ids_b[found]) for found, index in ids_a.items() if found in ids_b]
    stay = [common[number] for number in rising([j for _, j in common])]
    before = {j: i for i, j in stay}
    kept = {i for i, _ in stay}
    gone = [(i, item, _NOTHING) for i, item in enumerate(a) if i not in kept]
    return gone + [(j, a[before[j]] if j in before else _NOTHING, item) for j, item in enumerate(b)]


def _line(change: Change) -> str:
    path = printable(change.path) or "the whole document"
    if change.before is None:
        return f"+ {path}: {_excerpt(change.after or '')}"
    if change.after is None:
        return f"- {path}: {_excerpt(change.before)}"
    before, after = change.before, change.after
    if max(len(before), len(after)) > _LONGEST:
        start = max(common(before, after) - _LEAD, 0)
        return f"~ {path}: {_excerpt(before, start)} → {_excerpt(after, start)}"
    return f"~ {path}: {printable(before)} → {printable(after)}"


def _excerpt(text: str, start: int = 0) -> str:
    """A part of a long text, with the number of characters of the whole."""
    if start == 0 and len(text) <= _LONGEST:
        return printable(text)
    end = start + _LONGEST
    cut = f"{'…' if start else ''}{printable(text[start:end])}{'…' if end < len(text) else ''}"
    return f"{cut} ({len(text)} characters)"


# Text


def _lines(text: str) -> list[str]:
    """The lines with their newlines; only the last one may have none."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _unified(a: list[str], b: list[str], context: int) -> Iterator[str]:
    """A unified diff without its head."""
    hunks: list[list[Range]] = []
    for found in Matching().ranges(a, b):
        if hunks and found[0] - hunks[-1][-1][1] <= 2 * context:
            hunks[-1].append(found)
        else:
            hunks.append([found])
    for hunk in hunks:
        before = min(context, hunk[0][0])
        after = min(context, len(a) - hunk[-1][1])
        i, i_end = hunk[0][0] - before, hunk[-1][1] + after
        yield f"@@ -{_span(i, i_end)} +{_span(hunk[0][2] - before, hunk[-1][3] + after)} @@"
        for i1, i2, j1, j2 in hunk:
            yield from _shown(" ", a[i:i1])
            yield from _shown("-", a[i1:i2])
            yield from _shown("+", b[j1:j2])
            i = i2
        yield from _shown(" ", a[i:i_end])


def _span(start: int, end: int) -> str:
    """A range of lines as a unified diff has it."""
    length = end - start
    return f"{start + 1}" if length == 1 else f"{start + 1 if length else start},{length}"


def _shown(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        # A tab does no harm to a terminal, and is what texts are indented with.
        yield mark + "\t".join(printable(part) for part in line.removesuffix("\n").split("\t"))
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"
