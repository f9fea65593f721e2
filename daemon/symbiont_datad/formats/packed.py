"""A directory packed into one file: a tar, compressed with zstd, and sealed with age if there is a recipient.

`tar --zstd -xf` opens it, after `age -d -i KEY` where it is sealed. The tar is a POSIX one (pax(1)): names of any
bytes, times to the nanosecond.
"""

import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import IO, Any, BinaryIO, NamedTuple, cast

ENDING, SEALED = ".tar.zst", ".age"

_STEP = 4096  # bytes that are decompressed at a time: whatever they are, they don't become more than some 100 MiB
_LEVEL = 9  # written once, and kept
_KINDS = {tarfile.DIRTYPE: "directory", tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.SYMTYPE: "link"}
_TYPES = {"directory": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE}


class Member(NamedTuple):
    """One thing in a packed directory. `kind` is `directory`, `file` or `link`; `mode` has the permission bits only.

    `target` is that of a link, `digest` the SHA-256 of a file's content.
    """

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    digest: bytes = b""


class Packer:
    """Writes members one by one; see `packing`."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, member: Member) -> None:
        """Add a directory or a link."""
        self._archive.addfile(_info(member))

    def add_file(self, member: Member, fd: int) -> Member:
        """Add a file whose content is read from the descriptor, `member.size` bytes; hand it back with its digest.

        Raises OSError, also when there is less to read.
        """
        with open(fd, "rb", closefd=False) as file:
            reading = _Hashing(file)
            self._archive.addfile(_info(member), cast(IO[bytes], reading))
        return member._replace(digest=reading.digest())


@contextmanager
def packing(out: BinaryIO, recipient: str = "") -> Iterator[Packer]:
    """A packer into the binary file `out`; whole when the block ends. `recipient`: an age one, or empty.

    Raises OSError when it can't be written.
    """
    from zstandard import ZstdCompressor

    with (
        _sealing(out, recipient) as sink,
        ZstdCompressor(_LEVEL, write_checksum=True).stream_writer(sink, closefd=False) as compressed,
        tarfile.open(
            fileobj=cast(IO[bytes], compressed), mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8"
        ) as archive,
    ):
        yield Packer(archive)


def members(source: BinaryIO, identity: str = "") -> Iterator[Member]:
    """What is in a packed file, in its order, each file read to its end. `identity`: that of the key, where sealed.

    Raises OSError or ValueError for what is not whole.
    """
    from zstandard import ZstdError

    try:
        with _opening(source, identity) as plain:
            tar = _Decompressed(plain)
            with tarfile.open(fileobj=cast(IO[bytes], tar), mode="r|", encoding="utf-8") as archive:
                for info in archive:
                    yield _member(archive, info)
            while tar.read(1 << 16):  # so that the checksum at the end is looked at
                pass
    except (tarfile.TarError, ZstdError, OverflowError) as error:  # the last for a length in a pax header
        raise ValueError(f"not a whole packed file: {error}") from None


def _info(member: Member) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)
    info.type = _TYPES[member.kind]
    info.mode, info.uid, info.gid = member.mode, member.uid, member.gid
    info.size = member.size if member.kind == "file" else 0
    info.linkname = member.target
    seconds, nanoseconds = divmod(member.mtime_ns, 10**9)
    info.mtime = seconds
    if nanoseconds or seconds < 0:
        sign, whole = ("-", -member.mtime_ns) if member.mtime_ns < 0 else ("", member.mtime_ns)
        info.pax_headers = {"mtime": f"{sign}{whole // 10**9}.{whole % 10**9:09}"}
    return info


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kind = _KINDS.get(info.type)
    if kind is None:
        raise ValueError(f"{info.name!r} is neither a directory, a file nor a link")
    digest = b""
    if kind == "file":
        content = archive.extractfile(info)
        assert content is not None
        reading = _Hashing(content)
        while reading.read(1 << 20):
            pass
        digest = reading.digest()
    size = info.size if kind == "file" else 0
    return Member(info.name, kind, info.mode, info.uid, info.gid, _mtime_ns(info), size, info.linkname, digest)


def _mtime_ns(info: tarfile.TarInfo) -> int:
    text = info.pax_headers.get("mtime")
    if text is None:
        return int(info.mtime) * 10**9
    whole, _, fraction = text.removeprefix("-").partition(".")
    nanoseconds = int(whole) * 10**9 + int(fraction.ljust(9, "0")[:9])
    return -nanoseconds if text.startswith("-") else nanoseconds


class _Decompressed:
    """The content of a zstd frame, to be read like a file. A frame that is cut off is an error, and no end."""

    def __init__(self, source: BinaryIO) -> None:
        from zstandard import ZstdDecompressor

        self._source = source
        self._frame = ZstdDecompressor().decompressobj()
        self._content = b""

    def read(self, size: int) -> bytes:
        pieces = [self._content]
        have = len(self._content)
        while have < size and not self._frame.eof:
            piece = self._source.read(_STEP)
            if not piece:
                raise ValueError("not a whole packed file: its end is missing")
            pieces.append(self._frame.decompress(piece))
            have += len(pieces[-1])
        content = b"".join(pieces)
        self._content = content[size:]
        return content[:size]


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def digest(self) -> bytes:
        return self._hash.digest()


# Sealing: age's library pulls from a reader and pushes into a writer, so it works in a thread, behind a pipe.


@contextmanager
def _sealing(out: BinaryIO, recipient: str) -> Iterator[BinaryIO]:
    if not recipient:
        yield out
        return
    from pyrage import encrypt_io, x25519

    to = x25519.Recipient.from_str(recipient)
    reading, writing = os.pipe()
    with open(reading, "rb") as far, open(writing, "wb") as near, _beside(far, near, out) as work:
        work(lambda file: encrypt_io(far, file, [to]))
        yield cast(BinaryIO, near)


@contextmanager
def _opening(source: BinaryIO, identity: str) -> Iterator[BinaryIO]:
    if not identity:
        yield source
        return
    from pyrage import decrypt_io, x25519

    key = x25519.Identity.from_str(identity)
    reading, writing = os.pipe()
    with open(reading, "rb") as near, open(writing, "wb") as far, _beside(far, near, source) as work:
        work(lambda file: decrypt_io(file, far, [key]))
        yield cast(BinaryIO, near)


@contextmanager
def _beside(far: IO[bytes], near: IO[bytes], file: BinaryIO) -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Runs work on `file` in a thread that has the `far` end of a pipe. What went wrong there is raised when the block
    ends: the file's own error, or ValueError for what the library says.
    """
    noting = _Noting(file)
    failed: list[Exception] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[[Any], None]) -> None:
        def run() -> None:
            try:
                with far:
                    work(noting)
                if noting.error is not None:  # the library says nothing of one that comes last
                    failed.append(noting.error)
            except Exception as error:
                failed.append(noting.error or error)

        threads.append(threading.Thread(target=run, name="age", daemon=True))
        threads[0].start()

    try:
        yield start
    except BrokenPipeError:  # the thread has ended, and knows why
        pass
    finally:
        with suppress(BrokenPipeError):
            near.close()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0] if isinstance(failed[0], OSError) else ValueError(str(failed[0]))


class _Noting:
    """A file whose errors are kept: age's library makes errors of its own out of them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            raise

    def write(self, data: bytes, /) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Nothing is held back here."""
