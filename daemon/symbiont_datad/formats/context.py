"""The content of the runtime's state files: whether it is whole, and what is wrong with it.

By Symbiont 1.19.0 (`crates/runtime/src/context/manager.rs`): a context is JSON, gzip or not, by a mode that the name's
extension states (`state_name`); one that does not load keeps the whole runtime from starting.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from symbiont_datad.formats.schema import (
    AgentContext,
    AnyArchive,
    AnyContext,
    ArchivedContext,
    decoder,
    fields_of,
)
from symbiont_datad.formats.sealed import is_cut, is_sealed

REQUIRED = fields_of(AnyContext)
"""The fields without which the runtime does not load a context."""

LARGEST = 64 << 20
"""Bytes of JSON up to which a file is judged; a small gzip file may hold any number."""

_GZIP = b"\x1f\x8b"
_NULS = 16
"""A whole gzip file may end in a few NUL bytes, for its last field is a length; a sealed one in any, now and then."""
_UNOPENED = "sealed; not opened"
_NUMBER_BEGUN = re.compile(rb"(?:-|[0-9]\.|[0-9][eE][+-]?)\Z")  # msgspec calls a number that is cut here an invalid one
_MOST = 6
_LEVEL = 6  # the runtime's (flate2's `Compression::default`)


class Damage(StrEnum):
    """What is wrong with a state file."""

    EMPTY = "empty"
    NUL_FILLED = "nul_filled"
    """It has its size, but not its content: zeros, as file systems leave them after a crash."""
    TRUNCATED = "truncated"
    NOT_JSON = "not_json"
    NOT_GZIP = "not_gzip"
    """It begins as gzip does, and goes on as gzip can't."""
    NOT_SEALED = "not_sealed"
    """Its name says that it is sealed, and it can't be opened."""
    MISSING_FIELDS = "missing_fields"
    WRONG_TYPE = "wrong_type"
    """A field holds another kind of value than a context has there."""
    OTHER_EXTENSION = "other_extension"
    """The content is whole, but the name's extension promises the other mode."""
    OTHER_SCHEMA = "other_schema"
    """A context, but not one that version 1.19.0 of the runtime loads; another version may."""
    TOO_LARGE = "too_large"
    """More JSON than is judged; it may be whole."""


DOUBTFUL = frozenset({Damage.OTHER_SCHEMA, Damage.TOO_LARGE})
"""What may be whole after all: told, and never touched."""

BY_SCHEMA = frozenset({Damage.MISSING_FIELDS, Damage.WRONG_TYPE})
"""JSON that is whole, and yet no context. No crash does that: a tool did, or another version of the runtime."""


class Form(StrEnum):
    """How content is stored."""

    JSON = "json"
    GZIP = "gzip"
    AGE = "age"


class Document(StrEnum):
    """What a file is meant to hold."""

    CONTEXT = "context"
    ARCHIVE = "archive"
    ANY = "any"
    """Any JSON (sessions)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong (None: nothing), and where, for people.

    `form`: how the content is stored. `written_at`: when the document says that it was last changed, in seconds since
    the epoch; 0 when it says nothing. Sealed content that could not be opened is not known to be damaged.
    """

    kind: Damage | None
    detail: str = ""
    form: Form = Form.JSON
    written_at: float = 0.0

    @property
    def good(self) -> bool:
        """Whether this content can take the place of a damaged one."""
        return self.kind is None or self.kind is Damage.OTHER_SCHEMA

    @property
    def unopened(self) -> bool:
        """Whether it is sealed, and nobody has looked into it."""
        return self.kind is None and self.detail == _UNOPENED

    @property
    def damaged(self) -> bool:
        """Whether it is certain that something is wrong."""
        return self.kind is not None and self.kind not in DOUBTFUL


def judge(
    content: bytes | Iterable[bytes], *, gzip: bool | None = None, document: Document = Document.CONTEXT
) -> Verdict:
    """Judge the content of a state file, given whole or in pieces. Never raises, whatever is in it.

    `gzip`: what the name promises; None when its extension promises nothing (backups, archives).
    """
    data = content if isinstance(content, bytes) and len(content) <= LARGEST else _join(content)
    if data is None:
        return _TOO_LARGE
    if not data:
        return Verdict(Damage.EMPTY, "it has no content")
    is_gzip = data.startswith(_GZIP)
    verdict = _judge_gzip(data, document) if is_gzip else _judge_json(data, document)
    if verdict.kind is None:
        if gzip is not None and gzip != is_gzip:
            what = "gzip in a file named .json" if is_gzip else "plain JSON in a file named .json.gz"
            return replace(verdict, kind=Damage.OTHER_EXTENSION, detail=what)
        return verdict
    return _nul_filled(data, verdict, _NULS if is_gzip else 1)


def judge_sealed(
    content: bytes | Iterable[bytes],
    open_sealed: Callable[[bytes], bytes | None] | None = None,
    *,
    gzip: bool | None = None,
    document: Document = Document.CONTEXT,
) -> Verdict:
    """Judge the content of a file that is sealed by its name. Never raises but for what `open_sealed` raises.

    `open_sealed` returns what is in it, None when it is sealed to another key, and raises ValueError when it is broken.
    """
    data = content if isinstance(content, bytes) and len(content) <= LARGEST else _join(content)
    if data is None:
        return replace(_TOO_LARGE, form=Form.AGE)
    if not data:
        return Verdict(Damage.EMPTY, "it has no content", Form.AGE)
    if not is_sealed(data):
        return _nul_filled(data, Verdict(Damage.NOT_SEALED, "it is not sealed with age", Form.AGE), _NULS)
    # What is sealed ends in a tag of 16 bytes, as good as random: never in so many NUL bytes.
    broken = is_cut(data) or data.endswith(bytes(_NULS))
    cut = Verdict(Damage.TRUNCATED, "the sealed data ends in the middle", Form.AGE) if broken else None
    try:
        text = open_sealed(data) if open_sealed and cut is None else None
    except ValueError as error:
        cut = Verdict(Damage.NOT_SEALED, str(error), Form.AGE)
        text = None
    if cut is not None:
        return _nul_filled(data, cut, _NULS)
    if text is None:
        return Verdict(None, _UNOPENED, Form.AGE)
    return replace(judge(text, gzip=gzip, document=document), form=Form.AGE)


def text_of(data: bytes) -> bytes:
    """The JSON in content that was judged to be good, gzip or not."""
    if not data.startswith(_GZIP):
        return data
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, LARGEST)


def resembles_context(data: bytes) -> bool:
    """Whether content is JSON with most of the outer fields of a context."""
    try:
        return len(decoder(dict[str, msgspec.Raw]).decode(text_of(data)).keys() & set(REQUIRED)) >= _MOST
    except (msgspec.DecodeError, UnicodeDecodeError, zlib.error, RecursionError):
        return False


def encoded(text: bytes, *, gzip: bool) -> bytes:
    """JSON as the runtime stores it: as it is, or as gzip of its level, without a name or a time in its header."""
    if not gzip:
        return text
    stream = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS | 16)
    return stream.compress(text) + stream.flush()


_TOO_LARGE = Verdict(Damage.TOO_LARGE, f"more than {LARGEST >> 20} MiB: not judged")


def _join(pieces: bytes | Iterable[bytes]) -> bytes | None:
    """The pieces as one; None when there are more bytes than are judged."""
    if isinstance(pieces, bytes):
        return None
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > LARGEST:
            return None
    return b"".join(taken)


def _nul_filled(data: bytes, verdict: Verdict, least: int) -> Verdict:
    """The same verdict, or that the content ends in NUL bytes, which explains it better."""
    nuls = len(data) - len(data.rstrip(b"\0"))
    unreadable = (Damage.TRUNCATED, Damage.NOT_JSON, Damage.NOT_GZIP, Damage.NOT_SEALED)
    if verdict.kind not in unreadable or nuls < least:
        return verdict
    return replace(verdict, kind=Damage.NUL_FILLED, detail=f"the last {nuls} of its {len(data)} bytes are NUL")


def _judge_gzip(data: bytes, document: Document) -> Verdict:
    """The content of the first gzip member is judged; like the runtime we don't look at what follows the member."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = stream.decompress(data, LARGEST + 1)
    except zlib.error as error:
        return Verdict(Damage.NOT_GZIP, str(error), Form.GZIP)
    if len(text) > LARGEST:
        return replace(_TOO_LARGE, form=Form.GZIP)
    if not stream.eof:
        return Verdict(Damage.TRUNCATED, "the gzip data ends in the middle", Form.GZIP)
    if not text:
        return Verdict(Damage.EMPTY, "the gzip file holds nothing", Form.GZIP)
    return _judge_json(text, document, Form.GZIP)


_READERS = {
    Document.CONTEXT: (decoder(AgentContext), decoder(AnyContext)),
    Document.ARCHIVE: (decoder(ArchivedContext), decoder(AnyArchive)),
    Document.ANY: (decoder(msgspec.Raw), decoder(msgspec.Raw)),
}


def _judge_json(text: bytes, document: Document, form: Form = Form.JSON) -> Verdict:
    exact, loose = _READERS[document]
    try:
        if not text.isascii():
            text.decode()  # msgspec passes over values without looking at their encoding
        try:
            return Verdict(None, "", form, _changed_at(exact.decode(text)))
        except msgspec.ValidationError as error:
            written_at, detail = _by_any_version(text, loose)
            if detail:
                kind = Damage.MISSING_FIELDS if detail.startswith("Object missing") else Damage.WRONG_TYPE
                return Verdict(kind, detail, form)
            return Verdict(Damage.OTHER_SCHEMA, str(error), form, written_at)
    except msgspec.DecodeError as error:
        cut = "truncated" in str(error) or (
            _NUMBER_BEGUN.search(text[-4:]) and str(error).endswith(f"(byte {len(text)})")
        )
        return Verdict(Damage.TRUNCATED if cut else Damage.NOT_JSON, str(error), form)
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data"
        return Verdict(Damage.TRUNCATED if cut else Damage.NOT_JSON, f"not UTF-8: {error.reason}", form)
    except RecursionError:
        return Verdict(Damage.NOT_JSON, "nested too deep", form)


def _by_any_version(text: bytes, loose: "msgspec.json.Decoder[Any]") -> tuple[float, str]:
    """When a document that not every version loads was written, and what keeps it from being one at all.

    Raises msgspec.DecodeError where it is no JSON: a wrong value ends a reader's look before it has seen the rest.
    """
    decoder(msgspec.Raw).decode(text)
    try:
        return _changed_at(loose.decode(text)), ""
    except msgspec.ValidationError as error:
        return 0.0, str(error)


def _changed_at(document: Any) -> float:
    """When a document says that it was last changed, in seconds since the epoch; 0 for one that says nothing."""
    return getattr(document, "changed_at", 0.0)
