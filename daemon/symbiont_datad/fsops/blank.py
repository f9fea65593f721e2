"""The blank line that takes the place of archived bytes at the head of a live log.

A log is cut at a block's boundary, where a line seldom ends. What is archived already and yet stays behind becomes this
line: spaces and tabs up to a newline, which readers of lines and of JSON skip. Its first blanks and tabs spell a mark,
by which we know our own line again, and which rotation has written it.
"""

import os

MARK_SIZE = 8
"""Bytes of a mark."""

SHORTEST = 32 + 8 * MARK_SIZE + 1
"""The length of the shortest such line, with its newline."""

_SPELLED = bytes.maketrans(b"01", b" \t")
_READ = bytes.maketrans(b" \t", b"01")
_OURS = f"{0x5A17C0DE:032b}".encode().translate(_SPELLED)


def new_mark() -> bytes:
    """A mark that no other line has."""
    return os.urandom(MARK_SIZE)


def blank_line(mark: bytes, length: int) -> bytes:
    """A blank line of `length` bytes with its newline; at least `SHORTEST`."""
    spelled = f"{int.from_bytes(mark):0{8 * MARK_SIZE}b}".encode().translate(_SPELLED)
    return (_OURS + spelled).ljust(length - 1) + b"\n"


def mark_of(head: bytes) -> bytes | None:
    """The mark of the blank line with which `head` begins; None when it begins with something else."""
    spelled = head[len(_OURS) : SHORTEST - 1]
    if not head.startswith(_OURS) or len(spelled) < SHORTEST - 1 - len(_OURS) or spelled.strip(b" \t"):
        return None
    return int(spelled.translate(_READ), 2).to_bytes(MARK_SIZE)


def blank_length(head: bytes) -> int:
    """How long the blank line is with which `head` begins, with its newline; 0 when it begins with something else."""
    end = head.find(b"\n") + 1
    return end if mark_of(head) is not None and end >= SHORTEST and not head[:end].strip(b" \t\n") else 0
