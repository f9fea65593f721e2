"""Copying files: blocks are shared where the file system can, else bytes go through; both sides are hashed."""

import ctypes
import errno
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

CHUNK = 1 << 20
"""How many bytes are read at a time. What is no larger is in memory as a whole."""

_CLONE = 0x40049409  # FICLONE of linux/fs.h; where it has another number, ENOTTY says that there is no such call
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
"""How file systems say that they can't share blocks, or not of these two files."""

_GZIP = zlib.MAX_WBITS | 16
_LEVEL = 4  # half the time of the runtime's 6, for 3 % more bytes

_LIBC = ctypes.CDLL(None, use_errno=True)


class Encoding(StrEnum):
    """What happens to the bytes on their way."""

    AS_IS = "as it is"
    GZIP = "gzip"
    """Plain text becomes one gzip member."""
    PLAIN = "plain"
    """The first gzip member becomes the text in it."""


class Copied(NamedTuple):
    """What was copied: SHA-256 of the bytes that were read, and how many were written."""

    digest: bytes
    size: int


class Differs(OSError):
    """What was read back is not what was written."""


def clone(from_fd: int, to_fd: int) -> bool:
    """Let an empty file share all blocks of another one; False where that is not possible. Raises OSError."""
    try:
        fcntl.ioctl(to_fd, _CLONE, from_fd)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def copy(
    from_fd: int,
    to_fd: int,
    size: int,
    encoding: Encoding = Encoding.AS_IS,
    *,
    cloning: bool = False,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Copy the first `size` bytes of a file into an empty one that is open for reading and writing; read it back.

    With `cloning` blocks are shared where that can be: of the whole file, whatever its size is by now. `on_bytes` is
    told of each piece that was read. Raises Differs when what is read back is not what was read, or does not decode to
    it; ValueError when the source can't be converted; OSError.
    """
    if encoding is not Encoding.AS_IS:
        return _convert(from_fd, to_fd, size, encoding, on_bytes)
    read = sha256()
    shared = cloning and clone(from_fd, to_fd)
    if shared:
        size = os.fstat(to_fd).st_size
    written = 0
    for piece in pieces(from_fd, size):
        read.update(piece)
        written += len(piece) if shared else _write(to_fd, piece)
        on_bytes(len(piece))
    back = sha256()
    for piece in pieces(to_fd, written):
        back.update(piece)
    if back.digest() != read.digest():
        raise Differs(errno.EIO, "what was read back is not what was written")
    return Copied(read.digest(), written)


def copy_small(data: bytes, text: bytes, to_fd: int, encoding: Encoding) -> int:
    """Write what was read of a small file into an empty one, and read it back; hand back how many bytes were written.

    `data` is all of the file, `text` what it holds. Raises Differs or OSError.
    """
    packed = data
    if encoding is Encoding.PLAIN:
        packed = text
    elif encoding is Encoding.GZIP:
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        packed = deflate.compress(text) + deflate.flush()
    _write(to_fd, packed)
    back = os.pread(to_fd, len(packed) + 1, 0)
    if back != packed or (encoding is Encoding.GZIP and zlib.decompress(back, _GZIP) != text):
        raise Differs(errno.EIO, "what was read back is not what was written")
    return len(packed)


def _convert(from_fd: int, to_fd: int, size: int, encoding: Encoding, on_bytes: Callable[[int], None]) -> Copied:
    """The digest of the source's bytes; what was written must decode to the text that the source has."""
    read, text, written = sha256(), sha256(), 0
    packing = encoding is Encoding.GZIP
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    inflate = zlib.decompressobj(_GZIP)
    for piece in pieces(from_fd, size):
        read.update(piece)
        on_bytes(len(piece))
        if packing:
            text.update(piece)
            written += _write(to_fd, deflate.compress(piece))
            continue
        for plain in inflated(inflate, piece):
            text.update(plain)
            written += _write(to_fd, plain)
    if packing:
        written += _write(to_fd, deflate.flush())
    elif not inflate.eof:
        raise ValueError("the gzip data ends in the middle")
    back = sha256()
    again = zlib.decompressobj(_GZIP)
    for piece in pieces(to_fd, written):
        for plain in inflated(again, piece) if packing else (piece,):
            back.update(plain)
    if back.digest() != text.digest():
        raise Differs(errno.EIO, "what was read back does not hold the text that was written")
    return Copied(read.digest(), written)


def inflated(inflate: "zlib._Decompress", piece: bytes) -> Iterator[bytes]:
    """The text in a piece of gzip data, a chunk at a time; what follows the member is passed over.

    Raises ValueError for what is no gzip data.
    """
    try:
        while not inflate.eof:
            text = inflate.decompress(piece, CHUNK)
            yield text
            piece = inflate.unconsumed_tail
            if not piece and len(text) < CHUNK:
                return
    except zlib.error as error:
        raise ValueError(str(error)) from None


def pieces(fd: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, or what there is of them, wherever the descriptor stands."""
    at = 0
    while at < size and (piece := os.pread(fd, min(CHUNK, size - at), at)):
        yield piece
        at += len(piece)


def _write(fd: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)


def sync_file_system(fd: int) -> bool:
    """Make all that was written to a file system durable, at once; False where the system can't (macOS).

    `fd` is a readable descriptor on it (syncfs(2)). Raises OSError, also when an earlier write to it had failed.
    """
    if not hasattr(_LIBC, "syncfs"):
        return False
    if _LIBC.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True
