"""What is in a file of a legacy place or of the tree, as far as a plan has to know it.

A context that is gzip is unpacked once, and what comes out is judged.
"""

import os
import zlib
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

import msgspec

from symbiont_datad.formats.context import LARGEST, Damage, Document, Verdict, judge
from symbiont_datad.fsops.copy import CHUNK, inflated, pieces
from symbiont_datad.migrate.legacy import holds_key

GZIP_MAGIC = b"\x1f\x8b"
_HEAD = 4096
_GZIP = zlib.MAX_WBITS | 16


class Content(NamedTuple):
    """What was read of one file.

    `damage` is the value of a `Damage`, empty for none that is certain or not judged. `text_size`: how long the text is
    that a gzip file holds (else the file's size). `exact`: the text is all there is, nothing follows the gzip member.
    `key`: it holds a private key.

    Where it was to be compared: `digest` is the SHA-256 of its bytes, `text` that of the text, and `updated_ns` what a
    context says of its last change, 0 where it says nothing.
    """

    gzip: bool
    text_size: int
    damage: str = ""
    detail: str = ""
    exact: bool = True
    key: bool = False
    digest: bytes = b""
    text: bytes = b""
    updated_ns: int = 0


class Question(NamedTuple):
    """What is to be known of a file: whether it is sound JSON, with the fields of a context or without, and all that
    takes to compare it with others.
    """

    judged: bool
    fields: bool = False
    compared: bool = False


class _Time(msgspec.Struct, frozen=True, gc=False):
    secs_since_epoch: int = 0
    nanos_since_epoch: int = 0


class _Times(msgspec.Struct, gc=False):
    updated_at: _Time = _Time()


_times = msgspec.json.Decoder(_Times)


def look(fd: int, size: int, question: Question) -> Content:
    """What is in the first `size` bytes of an open file. Raises OSError."""
    if size > LARGEST:
        return _of_large(fd, size, question)
    return of_data(os.pread(fd, size, 0) if size <= CHUNK else b"".join(pieces(fd, size)), question)[0]


def of_data(data: bytes, question: Question) -> tuple[Content, bytes]:
    """What is in a file that has this content; and the text in it, empty where it can't be had."""
    digest = sha256(data).digest() if question.compared else b""
    if not data.startswith(GZIP_MAGIC):
        verdict = _verdict(data, question)
        updated = _updated(data, verdict) if question.compared else 0
        key = holds_key(data[:_HEAD])
        return Content(False, len(data), _damage(verdict), verdict.detail, True, key, digest, digest, updated), data
    stream = zlib.decompressobj(_GZIP)
    try:
        text = stream.decompress(data, LARGEST + 1)
    except zlib.error:
        text = b""
    if not stream.eof or not text:  # it is not whole, or too large: judged with all that belongs to it
        verdict = judge(data, document=_document(question)) if question.judged else Verdict(None)
        return Content(True, len(data), _damage(verdict), verdict.detail, False, False, digest, digest), b""
    verdict = _verdict(text, question)
    content = Content(True, len(text), _damage(verdict), verdict.detail, not stream.unused_data)
    if question.compared:
        updated = _updated(text, verdict)
        content = content._replace(digest=digest, text=sha256(text).digest(), updated_ns=updated)
    return content, text


def _of_large(fd: int, size: int, question: Question) -> Content:
    digest, text, text_size, stream = sha256(), sha256(), 0, zlib.decompressobj(_GZIP)
    gzip = os.pread(fd, 2, 0) == GZIP_MAGIC
    damage = Damage.TOO_LARGE.value if question.judged else ""
    if not question.compared and not gzip:
        return Content(False, size, damage)
    for piece in pieces(fd, size):
        digest.update(piece)
        with suppress(ValueError):
            for plain in inflated(stream, piece) if gzip else (piece,):
                text.update(plain)
                text_size += len(plain)
    exact = not gzip or (stream.eof and not stream.unused_data)
    return Content(gzip, text_size, damage, "", exact, False, digest.digest(), text.digest())


def _verdict(text: bytes, question: Question) -> Verdict:
    return judge(text, document=_document(question)) if question.judged else Verdict(None)


def _damage(verdict: Verdict) -> str:
    """What is certainly wrong; a context that another version of the runtime may load is whole."""
    return verdict.kind.value if verdict.kind is not None and verdict.damaged else ""


def _document(question: Question) -> Document:
    return Document.CONTEXT if question.fields else Document.ANY


def _updated(text: bytes, verdict: Verdict) -> int:
    if verdict.damaged:
        return 0
    with suppress(msgspec.DecodeError, RecursionError):
        at = _times.decode(text).updated_at
        return at.secs_since_epoch * 10**9 + at.nanos_since_epoch
    return 0
