"""Cutting files: one chunk up to 1 MiB, above that where the content says, so that an insertion moves no later cut.

A file is the concatenation of its chunks, so every way to cut is right for a reader; the way only decides what is found
to be stored already. The cuts depend on the repository (its polynomial seeds them): the sizes of stored blobs tell
nobody else which known files are in it.
"""

import io
import os
from collections.abc import Iterator

WHOLE = 1 << 20
"""Files up to this size (bytes) are one chunk."""

SMALLEST, AVERAGE, LARGEST = 512 << 10, 1 << 20, 8 << 20
"""Sizes of chunks in bytes. restic reads any chunk up to 8 MiB."""

_HOLE = LARGEST
"""Holes from this size on (bytes) are not read."""

_ZEROS = bytes(LARGEST)


def pieces(fd: int, size: int, seed: int) -> Iterator[tuple[memoryview, bool]]:
    """The chunks of the first `size` bytes of an open file, and whether each is part of a hole (all zero).

    Fewer come when the file ends earlier. Each is valid until the next. Large holes are not read. Raises OSError.
    """
    from pyfastcdc import FastCDC  # 35 ms to import, and most backups have no large file

    cutter = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, seed=seed)
    for start, end, is_hole in _extents(fd, size):
        if is_hole:
            # restic makes holes only in a file that has this chunk of zeros, its own smallest one.
            yield memoryview(_ZEROS)[:SMALLEST], True
            for at in range(start + SMALLEST, end, LARGEST):
                yield memoryview(_ZEROS)[: end - at], True
        else:
            for chunk in cutter.cut_stream(_Window(fd, start, end)):
                yield chunk.data, False


class _Window(io.RawIOBase):
    """Part of a file as a stream."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd, self._at, self._end = fd, start, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._end - self._at)
        if wanted <= 0:
            return 0
        count = os.preadv(self._fd, [buffer[:wanted]], self._at)
        self._at += count
        return count


def _extents(fd: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """The file in parts `(start, end, whether it is a hole)`; small holes belong to the data around them."""
    at = data_from = 0
    while at < size:
        try:
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            if hole >= size:
                break
            try:
                data = min(os.lseek(fd, hole, os.SEEK_DATA), size)
            except OSError:  # ENXIO: no data any more
                data = size
        except OSError:  # the file system can't tell
            break
        if data - hole >= _HOLE:
            if hole > data_from:
                yield data_from, hole, False
            yield hole, data, True
            data_from = data
        at = data
    if data_from < size:
        yield data_from, size, False
