"""Cutting the head off a file: where, how, and how far it is when it was interrupted."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbiont_datad.fsops import collapse
from symbiont_datad.fsops.blank import SHORTEST, blank_length
from symbiont_datad.fsops.collapse import (
    Cut,
    Stage,
    blank,
    block_size,
    can_collapse,
    close_gap,
    cut_off,
    find_cut,
    find_head,
    put_back,
    stage_of,
)
from symbiont_datad.fsops.root import pinned

BLOCK = 512


@contextmanager
def opened(path: Path, content: bytes) -> Iterator[int]:
    """A file of that content, open for reading and writing."""
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], int]:
    """A file of some content, open for reading and writing."""
    opened_fds: list[int] = []

    def make(content: bytes) -> int:
        (tmp_path / "file").write_bytes(content)
        opened_fds.append(os.open(tmp_path / "file", os.O_RDWR))
        return opened_fds[-1]

    return make


@pytest.fixture
def collapsing(tmp_path: Path) -> Path:
    """A directory on a file system that can do it."""
    with pinned(str(tmp_path)) as fd:
        if not can_collapse(fd):
            pytest.skip("not on this platform: the file system of the tests can't collapse a range")
    return tmp_path


_contents = st.lists(st.integers(0, 700).map(lambda size: b"x" * size), max_size=25).map(b"\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_contents)
def test_a_cut_is_at_a_block_and_ends_with_a_line(tmp_path: Path, content: bytes) -> None:
    """The boundary is a whole block, the archive ends with a line, and as much goes as can."""
    with opened(tmp_path / "file", content) as fd:
        cut = find_cut(fd, len(content), BLOCK)
    last = content.rfind(b"\n") + 1
    if cut is None:
        assert last < 2 * BLOCK + SHORTEST
        return
    assert (0, True) == (cut.at % BLOCK, cut.at >= 2 * BLOCK)
    assert cut.at + SHORTEST <= cut.end <= last
    assert b"\n" == content[cut.end - 1 : cut.end]
    assert last - cut.at < BLOCK + SHORTEST, "no whole block more could go"
    assert b"\n" not in content[cut.at + SHORTEST - 1 : cut.end - 1], "no line more than needed is blanked"
    assert cut.start == 0 or content[cut.start - 1 : cut.start] == b"\n"
    assert b"\n" not in content[cut.start : cut.at]
    assert (content[cut.start : cut.end], cut.end - cut.start) == (cut.original, len(cut.blank))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_contents.filter(lambda content: len(content) > 3000), st.data())
def test_blanking_can_be_interrupted_and_taken_back(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    """Cut off after any number of bytes, it is known how far it is, and the file is again what it was."""
    with opened(tmp_path / "file", content) as fd:
        cut = find_cut(fd, len(content), BLOCK)
        if cut is None:
            return
        assert Stage.UNTOUCHED is stage_of(fd, cut)
        done = data.draw(st.integers(1, len(cut.blank)))
        os.pwrite(fd, cut.blank[:done], cut.start)
        assert stage_of(fd, cut) in (Stage.BLANKED, *([Stage.UNTOUCHED] if cut.original[:done].isspace() else []))
        put_back(fd, cut)
        assert content == (tmp_path / "file").read_bytes()


def test_the_lines_that_are_archived_go(collapsing: Path) -> None:
    """After the cut the file is one blank line and what came after the archived lines; a writer appends at its end."""
    content = b"".join(b"line %d\n" % n for n in range(5000))
    with opened(collapsing / "file", content) as fd, (collapsing / "file").open("ab", buffering=0) as writer:
        cut = find_cut(fd, len(content), block_size(fd))
        assert cut is not None
        cut_off(fd, cut)
        assert Stage.DONE is stage_of(fd, cut)
        writer.write(b"late\n")
        put_back(fd, cut)
    left = (collapsing / "file").read_bytes()
    assert left[blank_length(left) :] == content[cut.end :] + b"late\n"
    assert cut.end - cut.at == blank_length(left)


def test_a_line_longer_than_is_blanked(collapsing: Path) -> None:
    """Of a giant line only what stays behind is overwritten."""
    content = b"short\n" + b"y" * 300_000 + b"\nshort\n"
    with opened(collapsing / "file", content) as fd:
        cut = find_cut(fd, len(content), block_size(fd))
        assert cut is not None
        assert (cut.start, len(content)) == (cut.at, cut.end) or cut.end == len(content) - 6
        cut_off(fd, cut)
    left = (collapsing / "file").read_bytes()
    assert left[blank_length(left) :] == content[cut.end :]


@pytest.mark.parametrize("content", [b"", b"no end", b"x\n" * 40, b"z" * 100_000, b"\n" + b"z" * 100_000])
def test_where_nothing_can_be_cut(tmp_path: Path, content: bytes) -> None:
    """No whole block of whole lines: there is no cut."""
    with opened(tmp_path / "file", content) as fd:
        assert find_cut(fd, len(content), 4096) is None


def test_only_the_end_of_a_huge_file_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that has not ended for very long is given up, and not read again and again."""
    monkeypatch.setattr(collapse, "_LONGEST", 1 << 17)
    with opened(tmp_path / "file", b"x\n" * 10_000 + b"z" * (1 << 18)) as fd:
        assert find_cut(fd, os.fstat(fd).st_size, 4096) is None


def test_a_file_that_others_have_cut_is_not_touched(collapsing: Path) -> None:
    """Shorter or with other lines by now: nothing is written to it, and it counts as foreign."""
    content = b"".join(b"line %d\n" % n for n in range(5000))
    with opened(collapsing / "file", content) as fd:
        cut = find_cut(fd, len(content), block_size(fd))
        assert cut is not None
        os.ftruncate(fd, 10)
        with pytest.raises(OSError, match="somebody else has cut or changed"):
            cut_off(fd, cut)
        assert Stage.FOREIGN is stage_of(fd, cut)
        assert content[:10] == (collapsing / "file").read_bytes()
        other = content.replace(b"line", b"word")
        os.pwrite(fd, other, 0)
        assert Stage.FOREIGN is stage_of(fd, cut)
        with pytest.raises(OSError, match="somebody else has cut or changed"):
            cut_off(fd, cut)
        put_back(fd, cut)
        assert other == (collapsing / "file").read_bytes()


def test_a_refused_collapse_leaves_the_file_as_it_was(collapsing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blanking is taken back."""

    def refuse(_fd: int, _length: int, _offset: int = 0) -> None:
        raise OSError(22, "Invalid argument")

    content = b"".join(b"line %d\n" % n for n in range(5000))
    with opened(collapsing / "file", content) as fd:
        cut = find_cut(fd, len(content), block_size(fd))
        assert cut is not None
        monkeypatch.setattr(collapse, "_collapse", refuse)
        with pytest.raises(OSError, match="Invalid argument"):
            cut_off(fd, cut)
    assert content == (collapsing / "file").read_bytes()


def _punched(fd: int, cut: Cut) -> None:
    """The range is freed, and nothing has moved."""
    fallocate(fd, PUNCH_HOLE, 0, cut.at)


def _between(fd: int, cut: Cut) -> None:
    """Some extents have moved, and others not."""
    collapse._collapse(fd, cut.at)
    fallocate(fd, INSERT_RANGE, 3 * block_size(fd), cut.at)


def _unsized(fd: int, cut: Cut) -> None:
    """All has moved, and the size is the old one."""
    size = os.fstat(fd).st_size
    collapse._collapse(fd, cut.at)
    os.ftruncate(fd, size)


PUNCH_HOLE, INSERT_RANGE = 0x03, 0x20


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    call = ctypes.CDLL(None, use_errno=True).fallocate64
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    assert 0 == call(fd, mode, offset, length), os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("again", [None, "moved", "unsized"])
@pytest.mark.parametrize("late", [b"", b"late 1\nlate 2\n"], ids=["nothing after it", "lines after it"])
@pytest.mark.parametrize("even", [False, True], ids=["uneven", "even"])
@pytest.mark.parametrize("half", [_punched, _between, _unsized])
def test_a_collapse_that_was_cut_short_is_finished(
    collapsing: Path,
    half: Callable[[int, Cut], None],
    even: bool,
    late: bytes,
    again: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever the NUL bytes are that it has left, they go, and nothing else; also when closing them is cut short."""
    content = b"".join(b"line %06d of some length\n" % n for n in range(5000))
    path = collapsing / "file"
    with opened(path, content) as fd:
        block = block_size(fd)
        if even:  # what is written ends with a block
            content += b"x" * (block - len(content) % block - 1) + b"\n"
            os.pwrite(fd, content, 0)
        cut = find_cut(fd, len(content) // 2, block)
        assert cut is not None
        blank(fd, cut)
        half(fd, cut)
        assert Stage.GAP is stage_of(fd, cut)
        with path.open("ab") as writer:
            writer.write(late)
        real = collapse._collapse

        def fails(fd: int, length: int, offset: int = 0) -> None:
            if again == "unsized":
                size = os.fstat(fd).st_size
                real(fd, length, offset)
                os.ftruncate(fd, size)
            raise OSError(4, "Interrupted system call")

        if again:
            with monkeypatch.context() as patch:
                patch.setattr(collapse, "_collapse", fails)
                with pytest.raises(OSError, match="Interrupted"):
                    close_gap(fd, cut)
            assert Stage.GAP is stage_of(fd, cut)
        close_gap(fd, cut)
        assert Stage.DONE is stage_of(fd, cut)
        close_gap(fd, cut)
    left = path.read_bytes()
    assert cut.end - cut.at == blank_length(left)
    found = left[cut.end - cut.at :]
    assert found.rstrip(b"\n") + b"\n" == content[cut.end :] + late


def test_holes_of_others_are_no_gap(collapsing: Path) -> None:
    """A sparse file, a hole of another length: not ours to close."""
    content = b"".join(b"line %06d of some length\n" % n for n in range(5000))
    with opened(collapsing / "file", content) as fd:
        cut = find_cut(fd, len(content), block_size(fd))
        assert cut is not None
        cut_off(fd, cut)
        os.ftruncate(fd, 1 << 20)
        assert Stage.DONE is stage_of(fd, cut)
        close_gap(fd, cut)
        assert 1 << 20 == os.fstat(fd).st_size


def test_a_marked_head(tmp_path: Path) -> None:
    """The head of a file that will be cut to nothing: marked, taken back, and gone with the cut."""
    content = b"".join(b"line %d\n" % n for n in range(100))
    with opened(tmp_path / "file", content) as fd:
        head = find_head(fd, len(content))
        assert head is not None
        assert (0, 0, True) == (head.start, head.at, SHORTEST <= head.end < SHORTEST + 10)
        blank(fd, head)
        assert Stage.BLANKED is stage_of(fd, head)
        put_back(fd, head)
        assert (Stage.UNTOUCHED, content) == (stage_of(fd, head), (tmp_path / "file").read_bytes())
        blank(fd, head)
        os.ftruncate(fd, 0)
        assert Stage.DONE is stage_of(fd, head)
    with opened(tmp_path / "file", b"few\n") as fd:
        assert find_head(fd, 4) is None


def test_trying_leaves_no_trace(tmp_path: Path) -> None:
    """Whether the file system can do it is asked without a file that anybody could see."""
    before = tmp_path.stat().st_mtime_ns
    with pinned(str(tmp_path)) as fd:
        can_collapse(fd)
        assert os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    assert ([], before) == (os.listdir(tmp_path), tmp_path.stat().st_mtime_ns)


def test_where_there_is_no_such_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without it (macOS) says no, and a cut is refused."""
    monkeypatch.setattr(collapse, "_LIBC", object())
    with pinned(str(tmp_path)) as fd:
        assert not can_collapse(fd)
    with opened(tmp_path / "file", b"x" * 10_000) as fd, pytest.raises(OSError, match="not implemented"):
        collapse._collapse(fd, 4096)


def test_a_cut_carries_what_it_needs() -> None:
    """The blank of a cut is as long as what it replaces."""
    cut = Cut(10, 100, 300, b"12345678", b"o" * 290)
    assert (290, b" " * 90) == (len(cut.blank), cut.blank[:90])
