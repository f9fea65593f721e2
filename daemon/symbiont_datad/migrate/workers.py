"""The work on many files: looking into them, and making copies in the staging place. Processes help with both.

A piece of work is a list of files that lie near each other. It is sent to a process of the crew (`restic.crew`), or
done here where there are few, or where no process can be had.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import count
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.copy import CHUNK, Differs, Encoding, copy, copy_small
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.root import Tree, pinned
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.content import Content, Question, look, of_data
from symbiont_datad.migrate.planning import SOUND
from symbiont_datad.restic.crew import Crew, Serve

_FEW = 1000  # files that are looked into or copied before processes, which take 0.1 s to start, could help
_PIECE = 250  # files to a piece of work
_LARGE = 4 << 20  # files from this size on are done here: the work is the system's, and how far it is can be seen
_PROCESSES = 4  # at most

CHANGED, UNREADABLE, BROKEN, NO_ROOM = "changed", "unreadable", "broken", "no room"
"""What can go wrong with a file: it changed meanwhile; it can't be read; its copy is not what was read; the disk is
full (or the quota, or the largest size of a file)."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""How the system says that there is no room."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Trouble(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why nothing came of one file."""

    kind: str
    reason: str


class Looking(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file to look into: its path, how lstat saw it, and the question.

    With `copying`, a copy of a small one is made at once: as it is, or in the mode `gzip` (None: whatever it is) if it
    is sound.
    """

    path: bytes
    inode: int
    size: int
    mtime_ns: int
    mode: int
    question: Question
    copying: bool = False
    gzip: bool | None = None


class Making(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A copy to make: of which file, and how encoded.

    `growing`: it is a log; when it has only grown meanwhile, what there was at first is taken.
    """

    path: bytes
    inode: int
    size: int
    mtime_ns: int
    mode: int
    encoding: Encoding
    growing: bool = False


class Made(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A copy that was made, and read back. `name` is its path in the staging place.

    `digest` is that of the source's bytes; the rest is about the copy.
    """

    name: str
    encoding: Encoding
    digest: bytes
    inode: int
    size: int
    mtime_ns: int


class Seen(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is in a file, and the copy that was made of it, if one was."""

    content: Content
    made: Made | None = None


class _Work(msgspec.Struct, array_like=True, gc=False):
    root: bytes
    stage: bytes = b""
    """The staging place: the absolute path of a directory without links in it."""
    folder: str = ""
    """The directory in it that these copies come to; it is made for them. Nobody waits there for anybody else."""
    looking: list[Looking] = []
    making: list[Making] = []
    cloning: bool = False


class _Answer(msgspec.Struct, array_like=True, gc=False):
    seen: list[Seen | None] = []
    made: list[Made | None] = []
    trouble: list[Trouble | None] = []


_T = TypeVar("_T", Looking, Making)
_R = TypeVar("_R", Seen, Made)
OnFiles = Callable[[int, int, str], None]
"""Told of files that are done: how many, their bytes, and the path of the last."""


class Workers:
    """Looks into files and makes copies, here and in processes; to be closed after use.

    `stopping` is asked between two pieces of work; what is left then is answered by None.
    """

    def __init__(self, stopping: Callable[[], bool] = lambda: False) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._count = min(_PROCESSES, cores)
        self._crew: Crew | None = None
        self._pool = ThreadPoolExecutor(self._count)
        self._folders = count()
        self.stopping = stopping

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._crew is not None:
            self._crew.__exit__(kind, error, trace)

    def expect(self, files: int) -> None:
        """Have processes ready when there is much to do."""
        if self._crew is None and self._count > 1 and files > _FEW:
            self._crew = Crew(__name__, b"")
            self._crew.start(self._count)

    def look(
        self, root: str, files: Sequence[Looking], on_files: OnFiles, stage: str = ""
    ) -> list[Seen | Trouble | None]:
        """What is in files below `root`, in the same order; copies are made in the directory `stage`."""

        def work(piece: list[Looking]) -> _Work:
            return _Work(os.fsencode(root), os.fsencode(stage), str(next(self._folders)), looking=piece)

        return self._spread(files, work, lambda answer: answer.seen, on_files)

    def make(
        self, root: str, files: Sequence[Making], on_files: OnFiles, stage: str, cloning: bool
    ) -> list[Made | Trouble | None]:
        """Make copies of files below `root` in the directory `stage`; the answers are in the same order."""

        def work(piece: list[Making]) -> _Work:
            folder = str(next(self._folders))
            return _Work(os.fsencode(root), os.fsencode(stage), folder, making=piece, cloning=cloning)

        return self._spread(files, work, lambda answer: answer.made, on_files)

    def _spread(
        self,
        files: Sequence[_T],
        work: Callable[[list[_T]], _Work],
        pick: Callable[[_Answer], list[_R | None]],
        on_files: OnFiles,
    ) -> list[_R | Trouble | None]:
        self.expect(len(files))
        found: list[_R | Trouble | None] = []

        def one(piece: list[_T]) -> list[_R | Trouble | None]:
            if self.stopping():
                return [None] * len(piece)
            size = sum(file.size for file in piece)
            answer = self._answer(work(piece), size)
            on_files(len(piece), size, os.fsdecode(piece[-1].path))
            return [good or bad for good, bad in zip(pick(answer), answer.trouble, strict=True)]

        for some in self._pool.map(one, _pieces(files)):
            found += some
        return found

    def _answer(self, work: _Work, size: int) -> _Answer:
        if self._crew is not None and size < _LARGE:
            answer = self._crew.ask(msgspec.msgpack.encode(work))
            if answer is not None:
                return msgspec.msgpack.decode(answer, type=_Answer)
        return _do(work)


def looking(entry: Entry, question: Question, *, copying: bool = False, gzip: bool | None = None) -> Looking:
    """The order to look into a file."""
    mode = entry.mode & 0o777
    return Looking(os.fsencode(entry.path), entry.inode, entry.size, entry.mtime_ns, mode, question, copying, gzip)


def _pieces(files: Sequence[_T]) -> Iterator[list[_T]]:
    """Files in pieces of work; a large one is a piece of its own."""
    piece: list[_T] = []
    size = 0
    for file in files:
        if piece and (len(piece) == _PIECE or size + file.size >= _LARGE):
            yield piece
            piece, size = [], 0
        piece.append(file)
        size += file.size
    if piece:
        yield piece


def serve(_order: bytes) -> Serve:
    """What one of the processes does (see `restic.crew`)."""
    decoder, encoder = msgspec.msgpack.Decoder(_Work), msgspec.msgpack.Encoder()
    return lambda text, _fd: encoder.encode(_do(decoder.decode(text)))


def _do(work: _Work) -> _Answer:
    answer = _Answer([], [], [])
    tree = Tree(os.fsdecode(work.root))
    if not work.stage:
        _each(tree, work.looking, lambda dir_fd, name, one: _look(dir_fd, name, one, None), answer.seen, answer.trouble)
        return answer
    with _Stage(os.fsdecode(work.stage), work.folder) as stage:
        if work.looking:
            _each(
                tree,
                work.looking,
                lambda dir_fd, name, one: _look(dir_fd, name, one, stage),
                answer.seen,
                answer.trouble,
            )
        else:
            _each(
                tree,
                work.making,
                lambda dir_fd, name, one: _make(dir_fd, name, one, stage, work.cloning),
                answer.made,
                answer.trouble,
            )
    return answer


class _Stage:
    """A directory of its own in the staging place, made when the first copy comes."""

    def __init__(self, place: str, folder: str) -> None:
        self._place, self._folder = place, folder
        self._fd = -1
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def new(self, mode: int) -> tuple[str, int]:
        """A new file: its path in the staging place, and its descriptor, for reading and writing."""
        if self._fd < 0:
            with Tree(self._place).root() as place_fd:
                os.mkdir(self._folder, 0o700, dir_fd=place_fd)
                with pinned(self._folder, place_fd) as fd:
                    self._fd = os.dup(fd)
        name = str(self._number)
        self._number += 1
        return f"{self._folder}/{name}", os.open(name, _WRITE, mode, dir_fd=self._fd)

    def drop(self, path: str) -> None:
        """Remove a file that came to nothing."""
        with suppress(OSError):
            os.unlink(path.rpartition("/")[2], dir_fd=self._fd)


def _each(
    tree: Tree,
    files: Iterable[_T],
    do: Callable[[int, str, _T], _R | Trouble],
    good: list[_R | None],
    bad: list[Trouble | None],
) -> None:
    """Do something with each file; the directory of those that follow each other is pinned once."""
    held: tuple[str, int] | None = None
    try:
        for file in files:
            folder, _, name = os.fsdecode(file.path).rpartition("/")
            result: _R | Trouble
            try:
                if held is None or held[0] != folder:
                    if held is not None:
                        os.close(held[1])
                        held = None
                    with tree.directory(folder) as fd:
                        held = folder, os.dup(fd)
                result = do(held[1], name, file)
            except (FileNotFoundError, NotADirectoryError) as error:
                result = Trouble(CHANGED, error.strerror or str(error))
            except Differs as error:
                result = Trouble(BROKEN, error.strerror or str(error))
            except OSError as error:
                kind = NO_ROOM if error.errno in FULL else UNREADABLE
                result = Trouble(kind, error.strerror or str(error))
            except (ValueError, UnsafePath) as error:
                result = Trouble(UNREADABLE if isinstance(error, UnsafePath) else CHANGED, str(error))
            if isinstance(result, Trouble):
                good.append(None)
                bad.append(result)
            else:
                good.append(result)
                bad.append(None)
    finally:
        if held is not None:
            os.close(held[1])


_CHANGED = Trouble(CHANGED, "it changed while it was read")


def _look(dir_fd: int, name: str, one: Looking, stage: _Stage | None) -> Seen | Trouble:
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if not _is(one, found):
            return _CHANGED
        if stage is None or not one.copying or one.size > CHUNK:
            content = look(fd, one.size, one.question)
            return Seen(content) if _held_still(fd, one, content) else _CHANGED
        data = os.pread(fd, one.size, 0)
        content, text = of_data(data, one.question)
        if not _held_still(fd, one, content) or len(data) != one.size:
            return _CHANGED
    finally:
        os.close(fd)
    encoding = Encoding.AS_IS
    if one.gzip is not None and one.gzip is not content.gzip and content.damage in SOUND:
        encoding = Encoding.GZIP if one.gzip else Encoding.PLAIN
    if content.key or (encoding is not Encoding.AS_IS and not content.exact):
        return Seen(content)
    path, copy_fd = stage.new(one.mode)
    try:
        copy_small(data, text, copy_fd, encoding)
        made = _complete(copy_fd, one, found)
    except BaseException:
        stage.drop(path)
        raise
    finally:
        os.close(copy_fd)
    digest = content.digest or sha256(data).digest()
    return Seen(content, Made(path, encoding, digest, made.st_ino, made.st_size, one.mtime_ns))


def _held_still(fd: int, one: Looking, content: Content) -> bool:
    """Whether a file is still what it was when it was listed, and not damaged only because somebody is writing it.

    Whose open(2) is just cutting it has left its time as it was (see `jobs.judging`).
    """
    writing = content.damage not in SOUND and held(fd) is Held.YES
    return not writing and _is(one, os.fstat(fd))


def _make(dir_fd: int, name: str, one: Making, stage: _Stage, cloning: bool) -> Made | Trouble:
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if not _is(one, found) and not (one.growing and _has_grown(one, found)):
            return _CHANGED
        path, copy_fd = stage.new(one.mode)
        try:
            copied = copy(fd, copy_fd, one.size, one.encoding, cloning=cloning and not one.growing)
            now = os.fstat(fd)
            if not _is(one, now) and not (one.growing and _has_grown(one, now)):
                raise ValueError(_CHANGED.reason)
            made = _complete(copy_fd, one, found)
        except BaseException:
            stage.drop(path)
            raise
        finally:
            os.close(copy_fd)
    finally:
        os.close(fd)
    return Made(path, one.encoding, copied.digest, made.st_ino, made.st_size, one.mtime_ns)


def _complete(copy_fd: int, one: Looking | Making, source: os.stat_result) -> os.stat_result:
    """Give a copy what the source has beside its content: mode, times, and as root its owner."""
    made = os.fstat(copy_fd)
    if os.geteuid() == 0 and (made.st_uid, made.st_gid) != (source.st_uid, source.st_gid):
        os.fchown(copy_fd, source.st_uid, source.st_gid)
        os.fchmod(copy_fd, one.mode)  # chown(2) takes bits away
    elif stat.S_IMODE(made.st_mode) != one.mode:  # by the umask
        os.fchmod(copy_fd, one.mode)
    os.utime(copy_fd, ns=(source.st_atime_ns, one.mtime_ns))
    return made


def _is(one: Looking | Making, found: os.stat_result) -> bool:
    return (
        found.st_ino == one.inode
        and found.st_size == one.size
        and found.st_mtime_ns == one.mtime_ns
        and stat.S_ISREG(found.st_mode)
    )


def _has_grown(one: Making, found: os.stat_result) -> bool:
    return found.st_ino == one.inode and found.st_size >= one.size and stat.S_ISREG(found.st_mode)
