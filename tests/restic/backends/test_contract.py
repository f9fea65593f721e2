"""What every place for a repository must do, whatever it is made of."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.errors import Missing

DATA, LOCK = FileKind.DATA, FileKind.LOCK


def named(content: bytes) -> str:
    """The name of a file with this content."""
    return hashlib.sha256(content).hexdigest()


def put(backend: Backend, kind: FileKind, content: bytes) -> str:
    """Save a file under its own name, which is handed back."""
    name = named(content)
    backend.save(kind, name, [content])
    return name


def names(backend: Backend, kind: FileKind) -> list[str]:
    """The names of a kind, sorted."""
    return sorted(name for name, _ in backend.list(kind))


def test_every_kind_has_its_files(backend: Backend) -> None:
    """A file is listed with its size under the kind that it was saved as, and nowhere else, and comes back whole."""
    contents = {kind: [f"{kind} {number}".encode() * 3 for number in range(3)] for kind in FileKind}
    contents[FileKind.CONFIG] = [b"the only one"]
    saved = {kind: [(put(backend, kind, content), content) for content in contents[kind]] for kind in FileKind}
    for kind, files in saved.items():
        expected = [(str(kind) if kind is FileKind.CONFIG else name, len(content)) for name, content in files]
        assert sorted(expected) == sorted(backend.list(kind))
        assert [content for _, content in files] == [backend.load(kind, name) for name, _ in files]


def test_the_config_has_no_name(backend: Backend) -> None:
    """There is one config, by whatever name it is asked for."""
    backend.save(FileKind.CONFIG, "", [b"one"])
    backend.save(FileKind.CONFIG, "0" * 64, [b"two"])
    assert (b"two", b"two") == (backend.load(FileKind.CONFIG, ""), backend.load(FileKind.CONFIG, "f" * 64))
    backend.remove(FileKind.CONFIG, "")
    assert [] == list(backend.list(FileKind.CONFIG))


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (0, 1), (3, 4), (9, 1), (4, None), (0, 0), (5, 0), (4, 100), (10, 1), (10, None), (11, 5), (0, 1 << 40)],
)
def test_a_range_is_a_slice(backend: Backend, offset: int, length: int | None) -> None:
    """Any part of a file can be read; what is asked for behind its end is not there."""
    name = put(backend, DATA, b"0123456789")
    assert b"0123456789"[offset:][:length] == backend.load(DATA, name, offset, length)


@pytest.mark.parametrize("kind", FileKind)
@pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 5), (5, None), (0, 0)])
def test_what_is_not_there_is_missing(backend: Backend, kind: FileKind, offset: int, length: int | None) -> None:
    """Whatever is asked of a file that isn't there, it is Missing, and the message names it."""
    name = "ab" * 32
    with pytest.raises(Missing, match="config" if kind is FileKind.CONFIG else name):
        backend.load(kind, name, offset, length)
    assert [] == list(backend.list(kind))
    backend.remove(kind, name)


def test_what_is_removed_is_gone(backend: Backend) -> None:
    """A removed file is no longer listed or read, the others are, and to remove it again is no error."""
    first, second = put(backend, DATA, b"first"), put(backend, DATA, b"second")
    backend.remove(DATA, first)
    assert [second] == names(backend, DATA)
    with pytest.raises(Missing):
        backend.load(DATA, first)
    backend.remove(DATA, first)
    assert b"second" == backend.load(DATA, second)


def test_a_file_is_replaced(backend: Backend) -> None:
    """The second save of a name counts, also when it is shorter."""
    backend.save(LOCK, "ab" * 32, [b"a longer text"])
    backend.save(LOCK, "ab" * 32, [b"short"])
    assert [("ab" * 32, 5)] == list(backend.list(LOCK))
    assert b"short" == backend.load(LOCK, "ab" * 32)


@pytest.mark.parametrize("parts", [[], [b""], [b"", b"", bytearray()]], ids=len)
def test_a_file_may_be_empty(backend: Backend, parts: list[bytes]) -> None:
    """No bytes are a file too."""
    backend.save(DATA, "ab" * 32, parts)
    assert [("ab" * 32, 0)] == list(backend.list(DATA))
    assert (b"", b"") == (backend.load(DATA, "ab" * 32), backend.load(DATA, "ab" * 32, 0, 4))


def test_a_large_pack_of_many_parts(backend: Backend) -> None:
    """20 MiB in thousands of parts of every kind and size, some of them empty, arrive in order."""
    content = os.urandom(20 << 20)
    forms = (bytes, bytearray, memoryview)
    cuts = range(0, len(content), 5000)
    parts = [part for cut in cuts for part in (forms[cut // 5000 % 3](content[cut : cut + 5000]), b"")]
    name = named(content)
    backend.save(DATA, name, parts)
    assert [(name, len(content))] == list(backend.list(DATA))
    assert name == named(backend.load(DATA, name))
    assert content[-70_000:] == backend.load(DATA, name, len(content) - 70_000)
    assert content[7_000_000:9_000_000] == backend.load(DATA, name, 7_000_000, 2_000_000)


def test_eight_threads_at_once(backend: Backend) -> None:
    """Threads that save, load and list at once get each what is theirs."""

    def work(number: int) -> None:
        for turn in range(6):
            content = f"{number} {turn} ".encode() * 5000
            assert content == backend.load(DATA, put(backend, DATA, content))
            assert named(content) in names(backend, DATA)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 48 == len(names(backend, DATA))


def test_one_file_of_eight_threads(backend: Backend, request: pytest.FixtureRequest) -> None:
    """A file that is saved by several threads at once is there for each of them, and whole.

    rclone's server writes over its files in place: who reads one meanwhile may find none, and a list may name it twice
    from then on; but never is there another content, or a part of it.
    """
    in_place = request.node.callspec.params["backend"] == "rclone"

    def work(_number: int) -> None:
        for _ in range(6):
            name = put(backend, LOCK, b"shared")
            with suppress(*([Missing] if in_place else [])):
                assert b"shared" == backend.load(LOCK, name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    listed = list(backend.list(LOCK))
    assert {(named(b"shared"), 6)} == set(listed)
    assert 1 == len(listed) or in_place
    assert b"shared" == backend.load(LOCK, named(b"shared"))


@pytest.mark.parametrize("kind", [DATA, FileKind.SNAPSHOT])
def test_thousands_of_names(backend: Backend, kind: FileKind) -> None:
    """3,000 files are listed, each once: more than one answer of S3 holds."""
    contents = [b"%d" % number for number in range(3000)]
    with ThreadPoolExecutor(8) as pool:
        expected = sorted(pool.map(lambda content: put(backend, kind, content), contents))
    assert expected == names(backend, kind)


def test_what_is_no_name_is_left_out(backend: Backend) -> None:
    """Files that others put there are not taken for files of a repository."""
    name = put(backend, FileKind.KEY, b"key")
    for other in ("notes.txt", f"{name}-tmp-123", "AB" * 32, "ab" * 31, f"{name}0"):
        backend.save(FileKind.KEY, other, [b"x"])
        backend.save(DATA, other, [b"x"])
    assert ([name], []) == (names(backend, FileKind.KEY), names(backend, DATA))


def test_a_failing_save_leaves_nothing(backend: Backend) -> None:
    """When a save fails in the middle there is no file of this name, and one that was there is as it was."""
    broken: Any = [b"x" * 100_000] * 2000 + ["no bytes"]
    backend.save(LOCK, "ab" * 32, [b"old"])
    for kind in (DATA, LOCK):
        with pytest.raises(TypeError):
            backend.save(kind, "ab" * 32, broken)
    assert [] == names(backend, DATA)
    assert b"old" == backend.load(LOCK, "ab" * 32)


def test_made_twice(backend: Backend) -> None:
    """To make what is there already changes nothing."""
    name = put(backend, DATA, b"x")
    backend.create()
    assert b"x" == backend.load(DATA, name)


def test_free_space_is_a_number_or_unknown(backend: Backend) -> None:
    """A place says how many bytes are free, or that it has no end."""
    free = backend.free()
    assert free is None or 0 < free < 1 << 60
