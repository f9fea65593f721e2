"""Looking at all entries of a directory: by one process or by two, now or ahead, what is found is the same."""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from symbiont_datad.restic import looking
from symbiont_datad.restic.facts import Facts, split_facts
from symbiont_datad.restic.looking import Part, forget_ahead, look_ahead, look_at_all

AT_ONCE = 3


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every directory is large, and there are two cores, whatever the machine has. In the end nobody is at work."""
    monkeypatch.setattr(looking, "MANY", 1)
    monkeypatch.setattr(looking, "_LARGE", 0)
    monkeypatch.setattr(looking, "_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(looking, "_cores", lambda: 2)
    yield
    forget_ahead()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with files of any name, and a few other things."""
    for number in range(40):
        (tmp_path / f"{number}.json").write_bytes(b"x" * number)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).write_bytes(b"1234")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.utime(tmp_path / "7.json", ns=(2**63 + 10**9, -(10**18)))
    return tmp_path


@pytest.fixture
def fd(place: Path) -> Iterator[int]:
    """Its descriptor."""
    opened = os.open(place, os.O_RDONLY)
    yield opened
    os.close(opened)


def alone(fd: int, *omit: bytes) -> dict[bytes, bytes]:
    """The facts of each entry, as one process finds them."""
    names = [name for name in map(os.fsencode, os.listdir(fd)) if name not in omit]
    return dict(zip(names, split_facts(looking._look(fd, names).packed), strict=True))


def flat(parts: Sequence[Part]) -> dict[bytes, bytes]:
    """The facts of each entry; figures and positions fit them."""
    found: dict[bytes, bytes] = {}
    for names, facts in parts:
        assert facts is not None
        assert len(names) <= AT_ONCE or len(parts) == 1
        found |= zip(names, split_facts(facts.packed), strict=True)
        strange = {names[position] for position in facts.others}
        assert strange == {b"folder", b"link"}.intersection(names)
        assert facts.files == len(names) - len(strange)
        assert facts.latest_ns > 0 or not set(names) - {b"folder"}
    return found


def test_two_find_what_one_finds(fd: int) -> None:
    """And nothing of what is to be left out."""
    assert alone(fd) == flat(look_at_all(fd, ()))
    assert alone(fd, b"folder", b"7.json") == flat(look_at_all(fd, {b"folder", b"7.json"}))


@pytest.mark.parametrize("done", [0, 1, 8, 15])
def test_whoever_has_done_how_much(done: int, fd: int) -> None:
    """What one has done of the last parts, the other one does not do again; what it has failed to do, it does."""
    names = looking._names_in(fd)
    parts = looking._parts(names)
    assert 15 == len(parts)
    marks: list[Facts | None] = [looking._look(fd, part) for part in parts[15 - done :]]
    work = looking._Work(names, [*marks[:-1], None] if done > 1 else marks)
    work.take(fd)
    work.take_what_is_left(fd)
    assert alone(fd) == flat(work.parts)
    assert all(mark is facts for mark, (_, facts) in zip(marks[:-1], work.parts[15 - done :], strict=False))


def test_ahead(fd: int, place: Path) -> None:
    """Who was sent ahead is joined, once; what has come since then is not there yet."""
    look_ahead(fd)
    (other,) = looking._ahead.values()
    expected = alone(fd)
    assert expected == flat(look_at_all(fd, ()))
    assert {} == looking._ahead
    assert 0 == other._process.returncode
    (place / "new.json").touch()
    assert {b"new.json"} == flat(look_at_all(fd, ())).keys() - expected.keys()


def test_what_was_seen_ahead_ages(fd: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old, of another directory, or of more than is wanted, is no answer."""
    look_ahead(fd)
    (other,) = looking._ahead.values()
    (place / "new.json").touch()
    beside = os.open(place / "folder", os.O_RDONLY)
    assert {} == flat(look_at_all(beside, ()))
    os.close(beside)
    monkeypatch.setattr(looking, "_FRESH_S", 0.0)
    assert alone(fd) == flat(look_at_all(fd, ()))
    assert 0 == other._process.returncode
    monkeypatch.undo()
    look_ahead(fd)
    assert alone(fd, b"new.json") == flat(look_at_all(fd, {b"new.json"}))


def test_nobody_asks(fd: int) -> None:
    """Then it ends all the same."""
    look_ahead(fd)
    (other,) = looking._ahead.values()
    forget_ahead()
    assert 0 == other._process.returncode


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent", "/bin/cat"])
def test_a_second_process_that_is_none(program: str, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends, can't be started, or says nothing, is no loss."""
    monkeypatch.setattr(sys, "executable", program)
    assert alone(fd) == flat(look_at_all(fd, ()))
    look_ahead(fd)
    assert alone(fd) == flat(look_at_all(fd, ()))


def test_an_entry_that_can_not_be_looked_at(fd: int) -> None:
    """The part with it is left to the caller, whoever had it; no other is."""
    with looking._Other.start(fd) or pytest.fail("no process") as other:
        assert other.look([b"0.json", b"gone"]) is None
        assert looking._look(fd, [b"1.json"]).packed == (other.look([b"1.json"]) or pytest.fail("gone")).packed
    work = looking._Work([b"0.json", b"1.json", b"2.json", b"gone"], [])
    work.take(fd)
    work.take_what_is_left(fd)
    assert [True, False] == [facts is not None for _, facts in work.parts]


def test_an_empty_directory(tmp_path: Path) -> None:
    """It has no entries, for one who was sent ahead too."""
    fd = os.open(tmp_path, os.O_RDONLY)
    look_ahead(fd)
    assert [] == look_at_all(fd, ())
    os.close(fd)


def test_small_directories_are_for_one(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started for them, nor where there is one core."""
    monkeypatch.setattr(looking._Other, "start", lambda *_: pytest.fail("a second process"))
    monkeypatch.setattr(looking, "_cores", lambda: 1)
    assert alone(fd) == flat(look_at_all(fd, ()))
    monkeypatch.undo()
    look_ahead(fd)
    assert alone(fd).keys() == {name for names, _ in look_at_all(fd, ()) for name in names}


# What the other process says, message by message. It is run in a fork, where what it does can be measured.


def rest(pid: int) -> None:
    """Wait until a process waits for something, or a while where nobody knows: then it has done all that it can."""
    until = time.monotonic() + 5
    with suppress(FileNotFoundError):
        while time.monotonic() < until and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)


@contextmanager
def answering(fd: int, ahead: str, first: bytes = b"") -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The program in a process of its own: where it is asked, and where it answers. It was asked `first` before it
    began. It ends, and ends well, when nobody asks any more.
    """
    (asked, asking), (answers, answering) = os.pipe(), os.pipe()
    with open(asking, "wb") as questions, open(answers, "rb") as found:
        questions.write(first)
        questions.flush()

        def serve() -> None:
            os.close(asking)
            os.close(answers)
            sys.argv = ["", str(fd), ahead]
            sys.stdin, sys.stdout = open(asked), open(answering, "w")  # noqa: SIM115
            looking.main()

        with warnings.catch_warnings():
            # Python 3.12 and newer warn where threads exist (xdist has some). The child makes its own.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                serve()
            finally:
                os._exit(1)
        os.close(asked)
        os.close(answering)
        if not first:
            rest(pid)
        yield questions, found
        questions.close()
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_answers_until_nobody_asks(fd: int) -> None:
    """Facts of what is there, and nothing of a part with something that is not."""
    with answering(fd, "") as (questions, found):
        for names, expected in (([b"1.json", b"folder"], True), ([b"1.json", b"gone"], False), ([b"link"], True)):
            looking._send(questions, b"/".join(names))
            facts = looking._unpack(looking._receive(found))
            assert (looking._look(fd, names).packed if expected else None) == (facts and facts.packed)


@pytest.mark.parametrize("at_once", [False, True], ids=["when it has done all", "before it has begun"])
def test_it_goes_ahead_until_it_is_asked(at_once: bool, fd: int) -> None:
    """All names, and as many of the last parts as it has done by then; after that it answers."""
    ask = looking._LENGTH.pack(0)
    with answering(fd, "ahead", ask if at_once else b"") as (questions, found):
        if not at_once:
            questions.write(ask)
            questions.flush()
        names = looking._receive(found).split(b"/")
        assert looking._names_in(fd) == names
        (count,) = looking._LENGTH.unpack(looking._receive(found))
        done = [looking._unpack(looking._receive(found)) for _ in range(count)][::-1]
        assert count == 0 if at_once else count <= len(looking._parts(names))
        parts = looking._parts(names)[len(looking._parts(names)) - count :]
        assert [looking._look(fd, part).packed for part in parts] == [facts.packed for facts in done if facts]
        looking._send(questions, b"1.json")
        facts = looking._unpack(looking._receive(found))
        assert looking._look(fd, [b"1.json"]).packed == (facts and facts.packed)


@pytest.mark.parametrize("text", [b"\7", looking._LENGTH.pack(100) + b"1.js"], ids=["length", "names"])
def test_half_a_question_is_its_end(text: bytes, fd: int) -> None:
    """Who asked is gone."""
    with answering(fd, "") as (questions, found):
        questions.write(text)
        questions.flush()
        questions.close()
        assert b"" == found.read()
