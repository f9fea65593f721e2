"""The runtime's state files: what their names say, and whether their content is whole.

By FACTS of Symbiont 1.19.0 (`crates/runtime/src/context/manager.rs`, `context/types.rs`): a context is JSON, gzip or
not, by a mode that the name's extension states; one that does not load keeps the whole runtime from starting.
"""

import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

REQUIRED = (
    "agent_id",
    "session_id",
    "memory",
    "knowledge_base",
    "conversation_history",
    "metadata",
    "created_at",
    "updated_at",
    "retention_policy",
)
"""The fields without which the runtime does not load a context."""

LARGEST = 64 << 20
"""Bytes of JSON up to which a file is judged; a small gzip file may hold any number."""

_GZIP = b"\x1f\x8b"
_NULS_IN_GZIP = 16  # a whole gzip file may end in a few NUL bytes: its last field is a length


class Damage(StrEnum):
    """What is wrong with a state file."""

    EMPTY = "empty"
    NUL_FILLED = "nul_filled"
    """It has its size, but not its content: zeros, as file systems leave them after a crash."""
    TRUNCATED = "truncated"
    NOT_JSON = "not_json"
    NOT_GZIP = "not_gzip"
    """It begins as gzip does, and goes on as gzip can't."""
    MISSING_FIELDS = "missing_fields"
    OTHER_EXTENSION = "other_extension"
    """The content is whole, but the name's extension promises the other mode."""
    TOO_LARGE = "too_large"
    """More JSON than is judged; it may be whole."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong (None: nothing), and where, for people."""

    kind: Damage | None
    detail: str = ""


class Role(StrEnum):
    """What a file among the contexts is, by its name."""

    CONTEXT = "context"
    BACKUP = "backup"
    ARCHIVE = "archive"
    LEFTOVER = "leftover"
    """A temporary file that a crash left."""


@dataclass(frozen=True, slots=True)
class StateName:
    """What a name says. `seconds` since the epoch is when a backup or an archive was made; 0 for others."""

    role: Role
    agent: str
    seconds: int = 0
    gzip: bool = False


_NUMBER_BEGUN = re.compile(rb"(?:-|[0-9]\.|[0-9][eE][+-]?)\Z")  # msgspec calls a number that is cut here an invalid one
_BACKUP = re.compile(r"(?s)(.+?)(?:\.json)?\.backup\.([0-9]{1,19})\.json")
_ARCHIVE = re.compile(r"(?s)archives/([^/]+)/archive_([0-9]{1,19})\.json")


def name_of(path: str) -> StateName | None:
    """What the name of a file says, given its path relative to the directory of contexts; None: nothing that we know.

    An agent's id is a UUID by the runtime's own making, but any stem will do.
    """
    if path.endswith(".tmp"):
        return StateName(Role.LEFTOVER, "")
    if "/" in path:
        archive = _ARCHIVE.fullmatch(path)
        return StateName(Role.ARCHIVE, archive[1], int(archive[2])) if archive else None
    if path.endswith(".json"):
        backup = _BACKUP.fullmatch(path) if ".backup." in path else None
        if backup:
            return StateName(Role.BACKUP, backup[1], int(backup[2]))
        return StateName(Role.CONTEXT, path[:-5]) if len(path) > 5 else None
    if path.endswith(".json.gz") and len(path) > 8:
        return StateName(Role.CONTEXT, path[:-8], gzip=True)
    return None


def judge(
    content: bytes | Iterable[bytes], *, gzip: bool | None = None, required: Collection[str] = REQUIRED
) -> Verdict:
    """Judge the content of a state file, given whole or in pieces. Never raises, whatever is in it.

    `gzip`: what the name promises; None when its extension promises nothing (backups, archives). `required`: the fields
    that the outermost object must have; none of them means that any JSON will do.
    """
    data = _join([content] if isinstance(content, bytes) else content)
    if data is None:
        return _TOO_LARGE
    if not data:
        return Verdict(Damage.EMPTY, "it has no content")
    is_gzip = data.startswith(_GZIP)
    verdict = _judge_gzip(data, tuple(required)) if is_gzip else _judge_json(data, tuple(required))
    if verdict.kind is None and gzip is not None and gzip != is_gzip:
        what = "gzip in a file named .json" if is_gzip else "plain JSON in a file named .json.gz"
        return Verdict(Damage.OTHER_EXTENSION, what)
    nuls = len(data) - len(data.rstrip(b"\0"))
    if verdict.kind in (Damage.TRUNCATED, Damage.NOT_JSON, Damage.NOT_GZIP) and nuls >= (
        _NULS_IN_GZIP if is_gzip else 1
    ):
        return Verdict(Damage.NUL_FILLED, f"the last {nuls} of its {len(data)} bytes are NUL")
    return verdict


_TOO_LARGE = Verdict(Damage.TOO_LARGE, f"more than {LARGEST >> 20} MiB: not judged")


def _join(pieces: Iterable[bytes]) -> bytes | None:
    """The pieces as one; None when there are more bytes than are judged."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > LARGEST:
            return None
    return b"".join(taken)


def _judge_gzip(data: bytes, required: tuple[str, ...]) -> Verdict:
    """The content of the first gzip member is judged; what follows the member is not looked at."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = stream.decompress(data, LARGEST + 1)
    except zlib.error as error:
        return Verdict(Damage.NOT_GZIP, str(error))
    if len(text) > LARGEST:
        return _TOO_LARGE
    if not stream.eof:
        return Verdict(Damage.TRUNCATED, "the gzip data ends in the middle")
    if not text:
        return Verdict(Damage.EMPTY, "the gzip file holds nothing")
    return _judge_json(text, required)


def _judge_json(text: bytes, required: tuple[str, ...]) -> Verdict:
    try:
        if not text.isascii():
            text.decode()  # msgspec passes over values without looking at their encoding
        _decoder(required).decode(text)
    except msgspec.ValidationError as error:
        return Verdict(Damage.MISSING_FIELDS, str(error))
    except msgspec.DecodeError as error:
        cut = "truncated" in str(error) or (
            _NUMBER_BEGUN.search(text[-4:]) and str(error).endswith(f"(byte {len(text)})")
        )
        return Verdict(Damage.TRUNCATED if cut else Damage.NOT_JSON, str(error))
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data"
        return Verdict(Damage.TRUNCATED if cut else Damage.NOT_JSON, f"not UTF-8: {error.reason}")
    except RecursionError:
        return Verdict(Damage.NOT_JSON, "nested too deep")
    return Verdict(None)


@lru_cache
def _decoder(required: tuple[str, ...]) -> "msgspec.json.Decoder[Any]":
    """Checks that text is JSON, as strictly as the runtime's own reader, and makes nothing of the values."""
    if not required:
        return msgspec.json.Decoder(msgspec.Raw)
    return msgspec.json.Decoder(msgspec.defstruct("Context", [(name, msgspec.Raw) for name in required]))
