"""How rotated logs are stored: compressed, then sealed with age; what `zstdcat`, `zcat` and `age -d` open."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Protocol, cast

from symbiont_datad.formats.rotated import COMPRESSED, Rotated

CHUNK = 1 << 20
"""How many bytes are read at a time."""

_ZSTD_LEVEL = 3  # a core does some 300 MB of logs a second, to a tenth of their size
_GZIP_LEVEL = 6
_GZIP = 16 + zlib.MAX_WBITS  # zlib's own way to ask for a header and trailer of gzip


class Readable(Protocol):
    """Where the bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; none at the end."""


class Writable(Protocol):
    """Where the bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take all of them; how many those were."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A way to store. `compress` is `zstd`, `gzip` or `none`; `recipient` is who can open it (`age1…`), or empty."""

    compress: str = "none"
    recipient: str = ""

    @property
    def plain(self) -> bool:
        """Whether what is stored is the content as it is."""
        return self.compress == "none" and not self.recipient

    def named(self, archive: Rotated) -> Rotated:
        """What an archive is called that is stored like this."""
        return replace(archive, extension=COMPRESSED[self.compress], sealed=bool(self.recipient))

    def store(self, source: Readable, sink: Writable) -> None:
        """Read all of the source and write it as it is to be stored. Raises what the two of them raise."""
        compressed = _compressed(source, self.compress)
        if self.recipient:
            _seal(compressed, sink, self.recipient)
            return
        while data := compressed.read(CHUNK):
            sink.write(data)


def _compressed(source: Readable, how: str) -> Readable:
    if how == "zstd":
        from zstandard import ZstdCompressor  # most rotations have nothing to store

        packer = ZstdCompressor(_ZSTD_LEVEL, write_checksum=True)
        return packer.stream_reader(cast(IO[bytes], source), read_size=CHUNK)  # it only reads
    if how == "gzip":
        return _Pieces(_gzipped(source))
    return source


def _gzipped(source: Readable) -> Iterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    while data := source.read(CHUNK):
        yield packer.compress(data)
    yield packer.flush()


class _Pieces:
    """Pieces of any length, to be read like a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._left:
            try:
                self._left = next(self._pieces)
            except StopIteration:
                return b""
        cut = len(self._left) if size < 0 else size
        data, self._left = self._left[:cut], self._left[cut:]
        return data


def _seal(source: Readable, sink: Writable, recipient: str) -> None:
    from pyrage import encrypt_io, x25519

    ends = _Ends(source, sink)
    try:
        encrypt_io(ends, ends, [x25519.Recipient.from_str(recipient)])
    except Exception:
        if ends.error is not None:
            raise ends.error from None
        raise


class _Ends:
    """Source and sink for age's library, which makes errors of its own out of theirs: the first is kept here."""

    def __init__(self, source: Readable, sink: Writable) -> None:
        self._source = source
        self._sink = sink
        self.error: Exception | None = None

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except Exception as error:
            self.error = self.error or error
            raise

    def write(self, data: bytes, /) -> int:
        try:
            return self._sink.write(data)
        except Exception as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Nothing is held back here."""
