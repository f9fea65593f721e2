"""What a plan of a migration says, word by word: what happens to each file, where it goes, and why."""

import gzip
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.records import Deed, Identity, Known, Place
from tests import contexts
from tests.migrate.making import NOW, context
from tests.migrate.plans import AGENTS, PLAIN, A, B, Files, Tree, at, planned, told

LIVE, OTHER = f"{AGENTS}/{A}.json.gz", f"{AGENTS}/{A}.json"
BACKUP = f"{A}.backup.{int(at(5))}.json"
COLLECTIONS = "vector_db/collections"
TAR = (b"tar", at(5))


def one(text: str = "x", hours: float = 5, *, zipped: bool = False) -> tuple[bytes, float]:
    """A context that was written so many hours ago."""
    return context(text, zipped=zipped), at(hours)


def copied(place: str, tree: Files, path: str = f"{A}.json") -> Mapping[str, Any]:
    """A tree, and the knowledge that what stands at a place is a copy of the file at a path."""
    standing = Identity.of(Tree(tree).entries[place])
    known = Known(path, Identity(1, 1, 1), "bring", Place(False, place), b"", standing)
    return {"tree": tree, "known": {known.path: known}}


def doubtful() -> bytes:
    """A context with a memory of a kind that the runtime of today does not know."""
    value = contexts.context()
    value["memory"]["short_term"][0]["memory_type"] = "Dreamt"
    return contexts.plain(value)


CASES: Mapping[str, tuple[Files, Mapping[str, Any]]] = {
    "alone": ({f"{A}.json": one()}, {}),
    "in the mode in force": ({f"{A}.json": one()}, {"target": PLAIN}),
    "unpacked": ({f"{A}.json.gz": one(zipped=True)}, {"target": PLAIN}),
    "unpacked, with more behind it": ({f"{A}.json.gz": (context(zipped=True) + b"more", at(5))}, {"target": PLAIN}),
    "there already": ({f"{A}.json": one()}, {"tree": {LIVE: one(zipped=True)}}),
    "older": ({f"{A}.json": one("a", 5)}, {"tree": {LIVE: one("b", 2, zipped=True)}}),
    "newer": ({f"{A}.json": one("a", 2)}, {"tree": {LIVE: one("b", 5, zipped=True)}}),
    "as old": ({f"{A}.json": one("a", 5)}, {"tree": {LIVE: one("b", 5, zipped=True)}}),
    "two modes": ({f"{A}.json": one("a", 2), f"{A}.json.gz": one("b", 5, zipped=True)}, {}),
    "two modes, the same": ({f"{A}.json": one("a", 5), f"{A}.json.gz": one("a", 5, zipped=True)}, {}),
    "two modes around the tree": (
        {f"{A}.json": one("a", 2), f"{A}.json.gz": one("b", 7, zipped=True)},
        {"tree": {LIVE: one("c", 5, zipped=True)}},
    ),
    "two modes, both newer than the tree's": (
        {f"{A}.json": one("a", 2), f"{A}.json.gz": one("b", 3, zipped=True)},
        {"tree": {LIVE: one("c", 5, zipped=True)}},
    ),
    "two modes, one of them there": (
        {f"{A}.json": one("a", 2), f"{A}.json.gz": one("b", 7, zipped=True)},
        {"tree": {LIVE: one("b", 5, zipped=True)}},
    ),
    "the older one is a backup already": (
        {f"{A}.json": one("a", 5)},
        {"tree": {LIVE: one("b", 2, zipped=True), f"{AGENTS}/{A}.backup.{int(at(5))}.json": one("a")}},
    ),
    "another backup of that second": (
        {f"{A}.json": one("a", 5)},
        {"tree": {LIVE: one("b", 2, zipped=True), f"{AGENTS}/{A}.backup.{int(at(5))}.json": one("c")}},
    ),
    "the tree's is damaged": ({f"{A}.json": one()}, {"tree": {LIVE: (bytes(9), at(1))}}),
    "the tree's can't be read": ({f"{A}.json": one()}, {"tree": {LIVE: one("b")}, "unread": [LIVE]}),
    "the tree's has the other mode, and is older": ({f"{A}.json": one("a", 2)}, {"tree": {LIVE: one("b", 5)}}),
    "the tree's has the other mode, and is newer": ({f"{A}.json": one("a", 5)}, {"tree": {LIVE: one("b", 2)}}),
    "the tree's has the other mode, and is as old": ({f"{A}.json": one("a")}, {"tree": {LIVE: one("b")}}),
    "the tree's has the other mode, and nothing comes": ({f"{A}.json": (b"", at(5))}, {"tree": {LIVE: one("b")}}),
    "the other mode, the same and an older one": (
        {f"{A}.json": one("a", 5), f"{A}.json.gz": one("b", 7, zipped=True)},
        {"tree": {LIVE: one("a", 9)}},
    ),
    "the other mode, the same and a newer one": (
        {f"{A}.json": one("a", 5), f"{A}.json.gz": one("b", 2, zipped=True)},
        {"tree": {LIVE: one("a", 9)}},
    ),
    "the other mode, what is the same is newest in the tree": (
        {f"{A}.json": one("a", 5), f"{A}.json.gz": one("b", 2, zipped=True)},
        {"tree": {LIVE: one("a", 1)}},
    ),
    "changed since it was copied": ({f"{A}.json": one("a", 2)}, copied(LIVE, {LIVE: one("b", zipped=True)})),
    "written anew since it was copied": ({f"{A}.json": one("a", 2)}, copied(LIVE, {LIVE: one("a", zipped=True)})),
    "damaged": ({f"{A}.json": (b"{", at(5)), f"{B}.json.gz": (b"", at(5))}, {}),
    "half written": ({f"{A}.json": (b"{", NOW - 1.9), f"{B}.json": (b"{", NOW - 2.0)}, {}),
    "half written just now": ({f"{A}.json": (b"{", float(NOW)), f"{B}.json": (b"{", NOW + 1.0)}, {}),
    "of another version": ({f"{n}.json": (doubtful(), at(5)) for n in (A, B)}, {}),
    "of another version, alone": ({f"{A}.json": (doubtful(), at(5))}, {}),
    "no agent's": ({"index.json": (b"[]", at(5)), f"{A}.json": (b"[]", at(5))}, {}),
    "left over": ({f"{A}.json.tmp": (b"{", at(5))}, {}),
    "a name that is too long": ({"a" * 252 + ".txt": (b"x", at(5)), "b" * 251 + ".txt": (b"x", at(5))}, {}),
    "backups": (
        {f"{A}.json": one("live", 1)} | {f"{A}.backup.{int(at(h))}.json": one(str(h), h) for h in (2, 3, 4, 5)},
        {"tree": {f"{AGENTS}/{A}.json.backup.{int(at(6))}.json": one("t", 6, zipped=True)}},
    ),
    "backups, none of them trimmed": (
        {f"{A}.json": one("live", 1)} | {f"{A}.backup.{int(at(h))}.json": one(str(h), h) for h in (2, 3, 4, 5)},
        {"trimming": False},
    ),
    "backups of an agent whose context is in the tree": (
        {f"{A}.backup.{int(at(h))}.json": one(str(h), h) for h in (2, 3, 4, 5)},
        {"tree": {LIVE: one("live", 1, zipped=True)}},
    ),
    "backups of an agent whose context in the tree is damaged": (
        {f"{A}.backup.{int(at(h))}.json": one(str(h), h) for h in (2, 3, 4, 5)},
        {"tree": {LIVE: (b"", at(1))}},
    ),
    "backups of an agent without a context": (
        {f"{A}.backup.{int(at(h))}.json": one(str(h), h) for h in (2, 3, 4, 5, 6)},
        {"tree": {f"{AGENTS}/{A}.json.backup.{int(at(h))}.json": (b"", at(h)) for h in (1, 7)}},
    ),
    "backups of two agents": (
        {f"{a}.backup.{int(at(h))}.json": one(str(h), h) for a in (A, B) for h in (2, 3, 4)},
        {"tree": {f"{AGENTS}/{A}.json": one("live", 1)}, "target": replace(PLAIN, backup_count=2)},
    ),
    "backups that are there already": (
        {BACKUP: one("a"), f"{B}.json.backup.5.json": one("b", zipped=True), f"{B}.backup.7.json": (b"{", at(5))},
        {"tree": {f"{AGENTS}/{BACKUP}": one("a"), f"{AGENTS}/{B}.json.backup.5.json": one("c", zipped=True)}},
    ),
    "backups of one second in two directories": (
        {BACKUP: one("a"), f"deep/{BACKUP}": one("b"), f"more/{BACKUP}": one("a")},
        {},
    ),
    "a directory of backups": (
        {f"{A}.json": one("a"), f"{A}.json.gz": one("b", 7, zipped=True), f"{B}.json": (b"{", at(5)), "all.tar": TAR},
        {"kind": Kind.BACKUPS, "tree": {LIVE: one("b", 7, zipped=True), "state/backups/all.tar": (b"other", at(9))}},
    ),
    "contexts of before 1970": (
        {f"{A}.json": (context("a"), -5.0), f"{A}.json.gz": (context("b", zipped=True), -9.0)},
        {"tree": {f"{AGENTS}/{A}.json.backup.0.json": (context("c", zipped=True), 0.0)}},
    ),
    "archives": (
        {f"archives/{A}/archive_{n}.json": (f"[{n}]".encode(), at(9)) for n in (1, 2, 4)}
        | {f"archives/{A}/archive_9.json": (b"[", at(9))},
        {"tree": {f"{AGENTS}/archives/{A}/archive_{n}.json": (f"[{n // 3}]".encode(), at(9)) for n in (2, 3, 4)}},
    ),
    "an archive, there already": (
        {f"archives/{A}/archive_1.json": (b"[]", at(9))},
        {"tree": {f"{AGENTS}/archives/{A}/archive_1.json": (b"[]", at(1))}},
    ),
    "other files": (
        {name: (b"mine", at(5)) for name in ("alone", "newer", "older", "same", "as old")},
        {
            "tree": {
                f"{AGENTS}/newer": (b"theirs", at(9.5)),
                f"{AGENTS}/older": (b"theirs", at(2)),
                f"{AGENTS}/same": (b"mine", at(2)),
                f"{AGENTS}/as old": (b"theirs", at(5)),
            }
        },
    ),
    "another file, changed since it was copied": (
        {"notes": (b"new", at(9))},
        copied(f"{AGENTS}/notes", {f"{AGENTS}/notes": (b"old", at(5))}, "notes"),
    ),
    "a backup, changed since it was copied": (
        {BACKUP: one("a")},
        copied(f"{AGENTS}/{BACKUP}", {f"{AGENTS}/{BACKUP}": one("b"), LIVE: one("live", 1, zipped=True)}, BACKUP),
    ),
    "other files of one name": (
        {"x": (b"1", at(5)), f"x.backup.{int(at(5))}": (b"2", at(3))},
        {"tree": {f"{AGENTS}/x": (b"3", at(2))}},
    ),
    "logs": (
        {name: (b"mine", at(5)) for name in ("deep/alone.log", "newer.log", "older.log", "same.log")},
        {
            "kind": Kind.LOGS,
            "tree": {
                "logs/system/newer.log": (b"theirs", at(9.5)),
                "logs/system/older.log": (b"theirs", at(2)),
                "logs/system/older.log.20261118T060640Z-0001": (b"", at(2)),
                "logs/system/same.log": (b"mine", at(2)),
            },
        },
    ),
    "vectors": ({"a.lance/1": (b"1", at(5)), "b.lance/2": (b"2", at(5)), "c": (b"3", at(5))}, {"kind": Kind.VECTORS}),
    "vectors, the same": (
        {"a.lance/1": (b"1", at(5)), "b.lance/2": (b"2", at(5))},
        {"kind": Kind.VECTORS, "tree": {f"{COLLECTIONS}/a.lance/1": (b"1", at(1))}},
    ),
    "vectors, two of one name": (
        {
            "a.lance/1": (b"1", at(5)),
            "a.lance/2": (b"2", at(7)),
            "b.lance/1": (b"1", at(5)),
            "b.lance/2": (b"2", at(5)),
        },
        {
            "kind": Kind.VECTORS,
            "tree": {
                f"{COLLECTIONS}/a.lance/3": (b"3", at(6)),
                f"{COLLECTIONS}/a-{int(at(6))}.lance": (b"", at(6)),
                f"{COLLECTIONS}/a-{int(at(6)) + 1}.lance/x": (b"", at(6)),
                f"{COLLECTIONS}/b.lance/3": (b"3", at(2)),
            },
        },
    ),
    "vectors, whose other name is another's": (
        {"a.lance/1": (b"1", at(5)), f"a-{int(at(5))}.lance/1": (b"2", at(9))},
        {"kind": Kind.VECTORS, "tree": {f"{COLLECTIONS}/a.lance/3": (b"3", at(2))}},
    ),
    "vectors, as old as the tree's": (
        {"a.lance/1": (b"1", at(5))},
        {"kind": Kind.VECTORS, "tree": {f"{COLLECTIONS}/a.lance/3": (b"3", at(5))}},
    ),
    "vectors, half brought, beside others that give way": (
        {"a.lance/1": (b"1", at(5)), "b.lance/1": (b"1", at(5)), "b.lance/2": (b"2", at(5))},
        {
            "kind": Kind.VECTORS,
            "tree": {f"{COLLECTIONS}/{name}": (b"1", at(9)) for name in ("a.lance/3", "b.lance/1", "b.lance/2")},
            "made": [f"{COLLECTIONS}/b.lance/{name}" for name in "12"],
        },
    ),
    "keys": ({".env": (b"x", at(5)), "notes": (b"-----BEGIN PRIVATE KEY-----", at(5))}, {}),
}


def sections() -> Mapping[str, list[str]]:
    """What `plans.txt` says of each case: a heading, and what is told."""
    blocks = Path(__file__).with_name("plans.txt").read_text().split("\n\n")
    return {block.splitlines()[0]: block.splitlines()[1:] for block in blocks}


@pytest.mark.parametrize("name", CASES)
def test_all_that_a_plan_says(name: str) -> None:
    """What is done with each file, where it goes, what becomes of what stands there, and every reason for it."""
    source, options = CASES[name]
    assert sections()[name] == told(planned(source, **options))


@pytest.mark.parametrize("name", CASES)
def test_what_a_step_knows_of_files(name: str) -> None:
    """How many bytes are written, their SHA-256 where two were compared, and what stands in the way."""
    source, options = CASES[name]
    found, tree = planned(source, **options), Tree(options.get("tree", {}))
    moved = {move.path for move in found.moves}
    for step in found.copies:
        content, _ = source[step.file.path]
        written = (
            gzip.decompress(content[: len(content) - 4 * content.endswith(b"more")])
            if step.encoding is Encoding.PLAIN
            else content
        )
        gone = step.to.aside or any(step.to.path.startswith(f"{path}/") for path in moved)
        assert (len(written), None if gone else tree.entries.get(step.to.path)) == (step.size, step.standing)
        assert step.digest in (b"", sha256(content).digest())
    for step in found.steps:
        if step.deed is Deed.SAME:
            content, _ = source[step.file.path]
            assert (tree.entries.get(step.to.path), sha256(content).digest()) == (step.standing, step.digest)
    assert sum(step.size for step in found.copies) == found.bytes


def test_what_was_compared_is_known_by_its_digest() -> None:
    """Then it need not be read again to see whether the copy is whole."""
    source = {f"{A}.json": one("a", 5), "alone": (b"x", at(5))}
    found = planned(source, {LIVE: one("b", 2, zipped=True)})
    assert {f"{A}.json": sha256(source[f"{A}.json"][0]).digest(), "alone": b""} == {
        step.file.path: step.digest for step in found.steps
    }
