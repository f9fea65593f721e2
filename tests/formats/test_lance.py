"""Lance datasets: read in an order in which every version has its data, while a writer appends, compacts, cleans up."""

import importlib.util
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.formats.lance import (
    VERSIONS,
    Summary,
    is_dataset,
    is_manifest,
    needed,
    reading_order,
    summary,
    superseded,
    tagged,
    vanished,
    version_of,
)

NEWEST = b"18446744073709551610.manifest"  # versions count down
OLDER = b"18446744073709551611.manifest"

WRITER = """
import datetime, itertools, sys, time, lance, pyarrow
path = sys.argv[1]
def rows(n):
    return pyarrow.table({"n": list(range(n)), "text": [str(i) * 50 for i in range(n)]})
lance.write_dataset(rows(200), path)
print("ready", flush=True)
for turn in itertools.count():
    lance.write_dataset(rows(100), path, mode="append")
    dataset = lance.dataset(path)
    if turn % 5 == 1:
        dataset.delete("n < 3")
    if turn % 7 == 2:
        dataset.optimize.compact_files()
    if turn % 6 == 3:
        dataset.cleanup_old_versions(older_than=datetime.timedelta(seconds=0.2), delete_unverified=True)
    if turn % 20 == 4:
        dataset.create_scalar_index("n", "BTREE", replace=True)
    if turn % 23 == 22:
        lance.write_dataset(rows(50), path, mode="overwrite")
    print(turn, flush=True)
"""


def test_a_dataset_is_known_by_its_directories() -> None:
    """`_versions` and one more of a dataset's own directories make one; a `_versions` alone is anybody's."""
    assert is_dataset([b"data", b"_versions", b"_transactions"])
    assert is_dataset({b"_versions", b"_transactions"})
    assert not is_dataset([b"_versions", b"README"])
    assert not is_dataset([b"data", b"_indices"])
    assert not is_dataset([])


def test_what_points_is_read_before_what_it_points_at() -> None:
    """Tags, then versions, then branches, then the rest as it came."""
    names = [b"_deletions", b"_indices", b"_refs", b"_transactions", b"_versions", b"data", b"tree"]
    assert [b"_refs", VERSIONS, b"tree", b"_deletions", b"_indices", b"_transactions", b"data"] == reading_order(names)
    assert [VERSIONS, b"\xff", b"data"] == reading_order([b"\xff", b"data", VERSIONS])
    assert [] == reading_order([])


def test_half_written_manifests_are_no_versions() -> None:
    """Names by both schemes and of detached versions are versions; hints and temporary names are none."""
    for name in (NEWEST, b"7.manifest", b"d9223372036854775809.manifest"):
        assert is_manifest(name)
    temporary = (b".tmp_7.manifest_9c100374-3298-4537-afc6-f5ee7913666d", NEWEST + b"#1", b".tmpTeYSRS")
    for name in (*temporary, b"latest_version_hint.json", b".manifest"):
        assert not is_manifest(name)


def test_versions_that_went_away_are_found() -> None:
    """A version that is gone counts; a new one, a renamed hint and a temporary name don't."""
    before = [NEWEST, OLDER, NEWEST + b"#1", b"latest_version_hint.json"]
    assert {OLDER} == vanished(before, [NEWEST, b"18446744073709551609.manifest"])
    assert set() == vanished(before, before[:2])


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    groups = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def manifest(*fields: tuple[int, int | bytes], indices: bytes = b"") -> bytes:
    """A manifest's file: the section of indices, the manifest, the footer."""
    section = struct.pack("<I", len(indices)) + indices
    body = message(*fields, (6, 0)) if indices else message(*fields)
    return section + struct.pack("<I", len(body)) + body + struct.pack("<QHH4s", len(section), 0, 2, b"LANC")


UUID = bytes(range(16))
INDEX = message((1, message((1, message((1, UUID))))))
DIRECTORY = b"_indices/00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_a_manifest_tells_what_its_version_needs() -> None:
    """Data files, deletions, files of row ids and indices; not what lies in another dataset."""
    large = message((1, 300), (2, message((1, b"b.lance"))), (3, message((1, 1), (2, 5), (3, 1 << 63), (4, 2))))
    content = manifest(
        (1, b"a field"),
        (2, message((2, message((1, b"a.lance"), (2, b"\0\1"))), (3, message((2, 4), (3, 9))), (4, 77))),
        (2, large),
        (2, message((1, 2), (2, message((1, b"elsewhere.lance"), (7, 0))), (3, message((3, 1), (7, 0))))),
        (2, message((1, 3), (6, message((1, b"rows/ids"), (3, 5))))),
        (3, 12),
        indices=message(
            (1, message((1, message((1, UUID))), (10, message((1, b"index.idx"))), (10, message((1, b"aux.idx"))))),
            (1, message((1, message((1, UUID))), (9, 1))),
        ),
    )
    assert {
        b"data/a.lance",
        b"data/b.lance",
        b"_deletions/0-4-9.arrow",
        b"_deletions/300-5-9223372036854775808.bin",
        b"rows/ids",
        DIRECTORY + b"/index.idx",
        DIRECTORY + b"/aux.idx",
    } == needed(content)
    assert {DIRECTORY} == needed(manifest(indices=INDEX))
    assert frozenset() == needed(manifest())


def test_a_manifest_tells_what_its_version_holds() -> None:
    """Rows less the deleted ones, fragments, the dimension of the first vectors, the time, and whether it borrows."""
    content = manifest(
        (1, message((2, b"id"), (5, b"string"))),
        (1, message((2, b"vector"), (5, b"fixed_size_list:float:384"))),
        (1, message((2, b"other"), (5, b"fixed_size_list:double:3"))),
        (2, message((2, message((1, b"a.lance"))), (3, message((4, 7))), (4, 100))),
        (2, message((2, message((1, b"b.lance"))), (4, 5))),
        (3, 12),
        (7, message((1, 1_795_000_000), (2, 500_000_000))),
    )
    assert Summary(12, 98, 7, 2, 384, 1_795_000_000.5, False) == summary(content)
    assert Summary(0, 0, 0, 0, None, 0.0, True) == summary(manifest((18, message((1, 1)))))
    assert 0 == summary(manifest((2, message((3, message((4, 7))), (4, 5))))).rows
    for broken in (b"", b"LANC", content[:-1]):
        with pytest.raises(ValueError):  # noqa: PT011
            summary(broken)


def test_versions_have_numbers_in_both_schemes() -> None:
    """The newer names count down; detached versions have no number."""
    assert [5, 4, 7, None] == [
        version_of(name) for name in (NEWEST, OLDER, b"7.manifest", b"d9223372036854775809.manifest")
    ]


def test_superseded_versions_are_those_that_nobody_reads_any_more() -> None:
    """What counts is when a newer one came, not the version's own age; the newest always stays."""
    written = {1: 10.0, 2: 20.0, 5: 30.0}
    assert [[], [1], [1, 2], [1, 2]] == [superseded(written, before) for before in (20.0, 20.1, 30.1, 1e9)]
    assert [] == superseded({7: 1.0}, 1e9) == superseded({}, 1e9)


def test_a_tag_names_a_version() -> None:
    """Whatever else is in such a file names none."""
    assert 3 == tagged(b'{"version": 3, "manifestSize": 100}')
    assert [None] * 4 == [tagged(data) for data in (b"", b"{", b"[3]", b'{"version": "3"}')]


def test_what_is_no_manifest_is_refused() -> None:
    """Any cut and any garbage is a `ValueError` or, where it still makes sense, an answer: nothing else happens."""
    whole = manifest((2, message((2, message((1, b"a.lance"))))), indices=INDEX)
    for content in (b"", b"LANC", whole[:-1], b"\xff" * 8 + whole[-8:]):
        with pytest.raises(ValueError):  # noqa: PT011
            needed(content)
    chance = random.Random(3)
    for _ in range(3000):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            needed(bytes(broken))
        except ValueError:
            pass


def copy_dataset(source: Path, target: Path) -> bool:
    """Copy as an archiver does; whether the newest version that was there has its data. Others that lack some go."""
    stored = set[bytes]()
    names = reading_order(sorted(os.listdir(os.fsencode(source))))
    for name in names:
        for directory, _, files in os.walk(os.fsencode(source) + b"/" + name):
            relative = os.path.relpath(directory, os.fsencode(source))
            os.makedirs(os.fsencode(target) + b"/" + relative)
            stored.add(relative)
            for file in sorted(files):
                try:
                    with open(directory + b"/" + file, "rb") as opened:
                        content = opened.read()
                except FileNotFoundError:
                    continue
                (target / os.fsdecode(relative) / os.fsdecode(file)).write_bytes(content)
                stored.add(relative + b"/" + file)
    versions = sorted(name for name in os.listdir(os.fsencode(target / "_versions")) if is_manifest(name))
    lacking = [
        name for name in versions if not needed((target / "_versions" / os.fsdecode(name)).read_bytes()) <= stored
    ]
    for name in lacking:
        (target / "_versions" / os.fsdecode(name)).unlink()
    return versions[:1] != lacking[:1]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_version_in_a_copy_can_be_read(tmp_path: Path) -> None:
    """20 copies while a writer appends, deletes, compacts and cleans up: every version in each can be read."""
    if importlib.util.find_spec("lance") is None:
        pytest.skip("pylance is not installed")
    live = tmp_path / "live.lance"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(live)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert "ready\n" == writer.stdout.readline()
            copies = []
            for attempt in range(60):
                if copy_dataset(live, tmp_path / f"{attempt}.lance"):
                    copies.append(tmp_path / f"{attempt}.lance")
                time.sleep(0.05)  # so that the copies fall into other moments of the writer's turns
            assert writer.poll() is None
        finally:
            writer.kill()
        progress = writer.communicate()[0]
    assert len(copies) >= 20
    assert int(progress.split()[-1]) > 20
    assert read_all(copies) >= len(copies)


def read_all(copies: list[Path]) -> int:
    """Read every row of every version, in another process, as the library starts threads; how many there are."""
    code = """
import sys, lance
versions = 0
for path in sys.argv[1:]:
    dataset = lance.dataset(path)
    for version in dataset.versions():
        at = dataset.checkout_version(version["version"])
        table = at.to_table()
        assert table.num_rows == at.count_rows() == len(table["text"]), path
        at.to_table(filter="n = 7")
        versions += 1
print(versions)
"""
    command: list[Any] = [sys.executable, "-c", code, *copies]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=120).stdout)
