"""Whether a cached file is damaged, by a look at its content: it may be anything, but is never nothing."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import msgspec

LARGEST = 16 << 20
"""Bytes; of a file with more only the beginning is judged."""


def damage(name: str, content: bytes, *, whole: bool = True) -> str:
    """What is wrong with a cached file, in words; an empty text when nothing is.

    Given are its name and its content, or, not `whole`, the beginning of it. A file that is named `.json` has to be
    JSON. File systems leave NUL bytes where a crash came between a file's size and its content.
    """
    if not content:
        return "it is empty"
    if not content.strip(b"\0"):
        return "it is nothing but NUL bytes"
    if not whole or not name.endswith(".json"):
        return ""
    from msgspec import DecodeError

    try:
        if not content.isascii():
            content.decode()  # msgspec passes over values without looking at their encoding
        _decoder().decode(content)
    except UnicodeDecodeError:
        return "it is no JSON: not UTF-8"
    except DecodeError as error:
        return f"it is no JSON: {error}"
    except RecursionError:
        return "it is no JSON: nested too deep"
    return ""


@lru_cache
def _decoder() -> "msgspec.json.Decoder[Any]":
    """Checks that text is JSON, and makes nothing of it."""
    import msgspec

    return msgspec.json.Decoder(msgspec.Raw)
