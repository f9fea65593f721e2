"""An old place that is mirrored: both sides in step, one way or both."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbiont_datad.migrate import planning
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.migration import alone, open_journal
from symbiont_datad.migrate.mirror import Mirror, Mirrored
from symbiont_datad.migrate.target import Compat
from tests.migrate.making import HOUR, NOW, Home, agent, context, everything, write

A, B, C = agent(1), agent(2), agent(3)


class Mirroring:
    """A home whose old place is mirrored. `turn` is what the daemon does."""

    def __init__(self, home: Home, *, both_ways: bool) -> None:
        self.home = home
        home.migrate()
        with alone(home.target), open_journal(home.target) as journal:
            (row,) = journal.sources()
            journal.set_compat(row.id, Compat.MIRROR, both_ways)
            (row,) = journal.sources()
        self.mirror = Mirror(row, home.target)

    def turn(self, hints: set[str] | None = None, tree_hints: set[str] | None = None) -> Mirrored:
        """Bring both sides in step."""
        with alone(self.home.target), open_journal(self.home.target) as journal:
            return self.mirror.turn(journal, hints, tree_hints)

    def rests(self) -> bool:
        """Whether another turn would do nothing."""
        before = everything(self.home.root, self.home.old)
        again = self.turn()
        return not again.brought and not again.returned and before == everything(self.home.root, self.home.old)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an old place of two contexts."""
    home = Home(tmp_path)
    write(home.old / f"{A}.json", context("a"), NOW - 9 * HOUR)
    write(home.old / f"{B}.json", context("b"), NOW - 9 * HOUR)
    return home


def text_of(path: Path) -> bytes:
    """A context, unpacked."""
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


@pytest.mark.parametrize("hinted", [False, True])
def test_what_is_written_to_the_old_place_is_brought_over(home: Home, hinted: bool) -> None:
    """A new context, a changed one, an archive; by a hint or by a scan. Then it rests."""
    one = Mirroring(home, both_ways=False)
    assert one.rests()
    write(home.old / f"{A}.json", context("a again"), NOW - HOUR)
    write(home.old / f"{C}.json", context("c"), NOW - HOUR)
    write(home.old / "archives" / C / "archive_1.json", b"{}")
    names = {f"{A}.json", f"{C}.json", f"archives/{C}/archive_1.json"}
    mirrored = one.turn(names if hinted else None)
    assert names == {step.file.path for step in mirrored.brought}
    assert context("a again") == text_of(home.live(1))
    assert context("c") == text_of(home.live(3))
    assert 3 == len(list(home.agents.glob("*.json*")))
    assert one.rests()


@pytest.mark.parametrize("hinted", [False, True])
def test_what_is_new_in_the_tree_goes_back_if_asked(home: Home, hinted: bool) -> None:
    """In the mode of the old place, with its times; the old file's mode stays. One way, nothing goes back."""
    (home.old / f"{A}.json").chmod(0o640)
    write(home.agents / f"{C}.json.gz", context("c", zipped=True), NOW - HOUR)
    one_way = Home(home.base)
    one = Mirroring(one_way, both_ways=False)
    one.turn()
    assert not (home.old / f"{C}.json").exists()
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        journal.set_compat(row.id, Compat.MIRROR, True)
        (row,) = journal.sources()
    one.mirror = Mirror(row, home.target)
    write(home.live(1), context("a by the runtime", zipped=True), NOW - HOUR)
    write(home.agents / "archives" / C / "archive_2.json", b"[]")
    write(home.agents / f"{C}.json.backup.5.json", context(zipped=True))
    paths = [home.live(1), home.live(3), home.agents / "archives" / C / "archive_2.json"]
    hints = {str(path.relative_to(home.root)) for path in paths} if hinted else None
    assert {f"{A}.json", f"{C}.json", f"archives/{C}/archive_2.json"} == set(one.turn(set(), hints).returned)
    assert (context("a by the runtime"), NOW - HOUR, 0o640) == (
        (home.old / f"{A}.json").read_bytes(),
        (home.old / f"{A}.json").stat().st_mtime,
        (home.old / f"{A}.json").stat().st_mode & 0o777,
    )
    assert context("c") == (home.old / f"{C}.json").read_bytes()
    assert not list(home.old.glob("*.backup.*"))
    assert one.rests()


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("newer", ["old", "tree"])
def test_what_was_changed_on_both_sides_is_a_conflict(home: Home, both_ways: bool, newer: str) -> None:
    """The newer one wins, on both sides if both are asked for; the other one is a backup in the tree."""
    one = Mirroring(home, both_ways=both_ways)
    old_at, tree_at = (NOW - HOUR, NOW - 2 * HOUR) if newer == "old" else (NOW - 2 * HOUR, NOW - HOUR)
    write(home.old / f"{A}.json", context("from the old place"), old_at)
    write(home.live(1), context("from the tree", zipped=True), tree_at)
    assert 1 == one.turn().conflicts
    winner, loser = context("from the old place"), context("from the tree")
    if newer == "tree":
        winner, loser = loser, winner
    assert winner == text_of(home.live(1))
    assert [loser] == [text_of(path) for path in home.agents.glob("*.backup.*")]
    if both_ways:
        assert winner == (home.old / f"{A}.json").read_bytes()
    assert one.rests()


def test_what_is_gone_on_one_side_stays_on_the_other(home: Home) -> None:
    """A mirror removes nothing, and brings back nothing that somebody removed."""
    one = Mirroring(home, both_ways=True)
    (home.old / f"{A}.json").unlink()
    home.live(2).unlink()
    assert one.rests()
    assert (False, True) == ((home.old / f"{A}.json").exists(), home.live(1).exists())
    assert (True, False) == ((home.old / f"{B}.json").exists(), home.live(2).exists())


def test_a_touch_is_no_change(home: Home) -> None:
    """The same content with another time is neither a conflict nor written anew."""
    one = Mirroring(home, both_ways=True)
    os.utime(home.old / f"{A}.json", (NOW, NOW))
    os.utime(home.live(2), (NOW, NOW))
    before = everything(home.root, home.old)
    mirrored = one.turn()
    assert (0, 0, 0) == (len(mirrored.brought), len(mirrored.returned), mirrored.conflicts)
    assert before == everything(home.root, home.old)
    assert one.rests()


def test_what_is_half_written_waits_and_what_is_broken_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither overwrites what is good on the other side; a broken one comes to quarantine, once."""
    monkeypatch.setattr(planning, "SETTLE_S", HOUR)  # it is young however slow this is
    one = Mirroring(home, both_ways=True)
    half = home.old / f"{A}.json"
    half.write_bytes(b"{")
    assert {f"{A}.json"} == one.turn({f"{A}.json"}).again
    assert context("a") == text_of(home.live(1))
    os.utime(half, (NOW - HOUR, NOW - HOUR))
    assert ["set aside"] == [step.deed.value for step in one.turn().brought]
    home.live(2).write_bytes(b"broken")
    assert one.rests()
    assert (context("a"), context("b")) == (text_of(home.live(1)), (home.old / f"{B}.json").read_bytes())


def test_keys_and_links_never_come(home: Home) -> None:
    """Not with the mirror either."""
    one = Mirroring(home, both_ways=True)
    write(home.old / "token", b"x")
    write(home.agents / "schemapin_keys.json", b"{}")
    (home.old / f"{C}.json").symlink_to(home.old / f"{A}.json")
    assert one.rests()


def test_undo_gives_both_sides_back(home: Home) -> None:
    """What the mirror wrote to the old place is as before; what the user wrote there since stays."""
    write(home.agents / f"{C}.json.gz", context("c", zipped=True), NOW - HOUR)
    first = everything(home.root, home.old)
    one = Mirroring(home, both_ways=True)
    one.turn()
    for text in ("once", "twice"):
        write(home.live(1), context(text, zipped=True), NOW - HOUR)
        os.utime(home.live(1), (NOW, NOW + len(text)))
        one.turn()
    assert context("twice") == (home.old / f"{A}.json").read_bytes()
    undone, _ = home.undo()
    assert [f"state/agents/{A}.json.gz"] == undone.kept
    kept = str(home.live(1))
    assert first == {path: state for path, state in everything(home.root, home.old).items() if path != kept}


def test_a_kill_before_the_journal_knows_costs_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer content of the tree was written to the old place, and the journal still has the older."""
    one = Mirroring(home, both_ways=True)
    write(home.live(1), context("newer", zipped=True), NOW - HOUR)
    monkeypatch.setattr(Journal, "note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        one.turn()
    monkeypatch.undo()
    one.turn()
    assert context("newer") == text_of(home.live(1)) == (home.old / f"{A}.json").read_bytes()
    assert one.rests()


def test_vectors_are_mirrored_file_by_file(home: Home) -> None:
    """A new version of a dataset comes with its data."""
    vectors = home.base / "vectors"
    write(vectors / "t.lance" / "data" / "1.lance", b"one")
    write(vectors / "t.lance" / "_versions" / "1.manifest", b"one")
    source = home.source(Kind.VECTORS, vectors)
    home.migrate(source)
    with alone(home.target), open_journal(home.target) as journal:
        row = journal.source(source)
    assert row is not None
    write(vectors / "t.lance" / "data" / "2.lance", b"two")
    write(vectors / "t.lance" / "_versions" / "2.manifest", b"two")
    with alone(home.target), open_journal(home.target) as journal:
        mirrored = Mirror(row, home.target).turn(journal)
    assert ["t.lance/data/2.lance", "t.lance/_versions/2.manifest"] == [step.file.path for step in mirrored.brought]
    place = home.root / "vector_db" / "collections" / "t.lance"
    assert {"1.lance", "2.lance"} == set(os.listdir(place / "data"))


_SIDES = st.sampled_from(["old", "tree"])
_WRITES = st.lists(st.tuples(_SIDES, st.integers(1, 3), st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_WRITES)
def test_whatever_is_written_both_sides_come_to_the_same(
    tmp_path: Path, writes: list[tuple[str, int, str, bool]]
) -> None:
    """The last written content of each agent, on both sides; and every content is somewhere in the tree."""
    base = tmp_path / str(len(list(tmp_path.iterdir())))
    home = Home(base)
    write(home.old / f"{A}.json", context("first"), NOW - 9 * HOUR)
    one = Mirroring(home, both_ways=True)
    seen: set[bytes] = set()
    last: dict[int, bytes] = {1: context("first")}
    for number, (side, who, text, turning) in enumerate(writes):
        body = context(f"{text}{number}")
        path = home.old / f"{agent(who)}.json" if side == "old" else home.live(who)
        write(path, body if side == "old" else gzip.compress(body), NOW - HOUR + number)
        if turning:
            one.turn()
            seen.add(body)
        last[who] = body
    one.turn()
    assert one.rests()
    for who, body in last.items():
        assert body == text_of(home.live(who)) == (home.old / f"{agent(who)}.json").read_bytes()
