"""Finding snapshots by what somebody writes, entries by their path, and the versions of a file."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, RepositoryError
from symbiont_datad.restic.find import NoSnapshot, Version, matching, node_at, resolve, split, versions, walk
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from tests.restic.making import make_repository, reopen, snapshot
from tests.support import Link, build_tree

NO_TREE = "00" * 32


def put(repository: Repository, time: str, host: str = "h", tags: str = "", paths: str = "/p") -> str:
    """A snapshot of nothing."""
    return repository.save_snapshot(
        Snapshot(time=time, tree=NO_TREE, paths=paths.split(), hostname=host, tags=tags.split())
    )


def test_latest_is_the_newest_that_matches(tmp_path: Path) -> None:
    """`latest` goes by time, whatever its zone, among those of the host that have all the tags and paths."""
    repository = make_repository(tmp_path / "r")
    first = put(repository, "2026-11-23T10:00:00.5Z", "a", "x")
    second = put(repository, "2026-11-23T10:30:00+01:00", "b", "x y", "/p /q")
    third = put(repository, "2026-11-23T10:00:00.500000001Z", "b", "y")
    assert {first, third} >= {resolve(repository, "latest")[0]}
    assert first == resolve(repository, "latest", tags=["x"])[0]
    assert second == resolve(repository, "latest", tags=["x", "y"])[0]
    assert second == resolve(repository, "latest", paths=["/q"])[0]
    assert first == resolve(repository, "latest", host="a")[0]
    assert [third, second] == [name for name, _ in matching(repository, host="b")]
    with pytest.raises(NoSnapshot, match="no snapshot of host c with the tag x"):
        resolve(repository, "latest", host="c", tags=["x"])


def test_the_beginning_of_an_id_is_enough(tmp_path: Path) -> None:
    """A beginning that is clear is taken; one that isn't, is nobody's or is none gets an error that helps."""
    repository = make_repository(tmp_path / "r")
    names = sorted(put(repository, f"2026-11-23T10:00:{number:02}Z") for number in range(40))
    one, other, common = max(
        ((one, other, one[: first_difference(one, other)]) for one, other in pairwise(names)),
        key=lambda found: len(found[2]),
    )
    for text in (one, one[: len(common) + 1]):
        assert (one, repository.snapshot(one)) == resolve(repository, text)
    with pytest.raises(NoSnapshot, match=f"{one[:8]}, {other[:8]}"):
        resolve(repository, common)
    with pytest.raises(NoSnapshot, match="begins with ffffffffffff"):
        resolve(repository, "ffffffffffff")
    for text in ("", "Latest", "../config", "xyz", one + "0"):
        with pytest.raises(NoSnapshot, match="neither"):
            resolve(repository, text)


def first_difference(one: str, other: str) -> int:
    """Where two ids begin to differ."""
    return next(at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("latest", ("latest", b"/")), ("ab:/x/y", ("ab", b"/x/y")), ("ab:", ("ab", b"/")), ("ab:/a:b", ("ab", b"/a:b"))],
)
def test_a_path_may_follow_the_snapshot(text: str, expected: tuple[str, bytes]) -> None:
    """The first colon parts the snapshot from the path."""
    assert expected == split(text)


def test_entries_are_found_by_path_and_walked_in_order(tmp_path: Path) -> None:
    """Every entry of a walk is what is at its path; directories come before what is in them, and can be passed over."""
    source = build_tree(tmp_path / "s", {"b": {"x": b"1", "\udcff": b"2", "c": {"d": b"3"}}, "a": b"4", "z": Link("a")})
    repository = make_repository(tmp_path / "r")
    found = repository.snapshot(snapshot(repository, source))
    top = os.fsencode(source)
    node = node_at(repository, found, top + b"/")
    assert node is not None
    tree = bytes.fromhex(node.subtree)
    entries = list(walk(repository, tree, prefix=top + b"/"))
    expected = [b"a", b"b", b"b/c", b"b/c/d", b"b/x", b"b/\xff", b"z"]
    assert expected == [path[len(top) + 1 :] for path, _ in entries]
    for path, entry in entries:
        assert entry == node_at(repository, found, path)
    assert [b"a", b"b", b"z"] == [path for path, _ in walk(repository, tree, enter=lambda _path, _node: False)]
    root = node_at(repository, found, b"/")
    assert root is not None
    assert found.tree == root.subtree
    for path in (b"/none", top + b"/a/b", top + b"/b/X"):
        assert node_at(repository, found, path) is None


def take(repository: Repository, source: Path, content: bytes | None) -> str:
    """A snapshot with that content of one file."""
    if content is None:
        (source / "f").unlink()
    else:
        (source / "f").write_bytes(content)
    return snapshot(repository, source)


def test_versions_of_a_file(tmp_path: Path) -> None:
    """Equal contents in a row are one version, newest first; one that comes back later is a version again."""
    source = build_tree(tmp_path / "s", {"g": b"g"})
    repository = make_repository(tmp_path / "r")
    names = [take(repository, source, content) for content in (b"1", b"1", b"2", None, b"2", b"", b"1")]
    found = versions(repository, os.fsencode(source / "f"), matching(repository), on_error=fail)
    assert [[6], [5], [4, 2], [1, 0]] == [[names.index(name) for name, _ in version.snapshots] for version in found]
    assert [1, 0, 1, 1] == [version.node.size for version in found]
    assert all(repository.snapshot(name).at == at for version in found for name, at in version.snapshots)
    assert [] == versions(repository, os.fsencode(source), matching(repository), on_error=fail)


def fail(name: str, error: RepositoryError) -> None:
    """No snapshot should be unreadable."""
    raise AssertionError((name, error))


def test_damage_is_told_and_passed_over(tmp_path: Path) -> None:
    """A snapshot whose tree can't be read costs the walk that directory, and the versions that snapshot."""
    source = build_tree(tmp_path / "s", {"d": {"f": b"1"}, "e": b"e"})
    repository = make_repository(tmp_path / "r")
    good = snapshot(repository, source)
    (source / "d" / "f").write_bytes(b"22")
    bad = snapshot(repository, source)
    inner = node_at(repository, repository.snapshot(bad), os.fsencode(source / "d"))
    outer = node_at(repository, repository.snapshot(bad), os.fsencode(source))
    assert inner is not None
    assert outer is not None
    place = repository.find(bytes.fromhex(inner.subtree))
    assert place is not None
    pack = tmp_path / "r" / FileKind.DATA / place.pack.hex()[:2] / place.pack.hex()
    content = bytearray(pack.read_bytes())
    content[place.offset + 20] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)

    repository = reopen(tmp_path / "r")
    told: list[bytes | str] = []
    tree = bytes.fromhex(outer.subtree)
    paths = [path for path, _ in walk(repository, tree, on_error=lambda path, _error: told.append(path))]
    assert [b"d", b"e"] == paths
    with pytest.raises(Damaged, match=place.pack.hex()):
        list(walk(repository, tree))
    found: list[Version] = versions(
        repository,
        os.fsencode(source / "d" / "f"),
        matching(repository),
        on_error=lambda name, _error: told.append(name),
    )
    assert [good] == [name for version in found for name, _ in version.snapshots]
    assert [b"d", bad] == told
