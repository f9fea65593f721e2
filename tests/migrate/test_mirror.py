"""An old place that is mirrored: both sides in step, one way or both."""

import gzip
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbiont_datad.fsops.copy import pieces
from symbiont_datad.migrate import mirror, planning, returning
from symbiont_datad.migrate.apply import NoRoom
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.migration import alone, open_journal
from symbiont_datad.migrate.mirror import Mirror, Mirrored
from symbiont_datad.migrate.plan import plan
from symbiont_datad.migrate.planning import Plan
from symbiont_datad.migrate.target import Compat
from tests.cli.test_restore import small_disk
from tests.migrate.making import HOUR, NOW, Home, agent, context, die, dies, everything, write

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


# Trouble


def changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Have something happen once, after files were looked into and before anything is copied."""

    def planned(*words: Any, **named: Any) -> Plan:
        monkeypatch.undo()
        change()
        return plan(*words, **named)

    monkeypatch.setattr(mirror, "plan", planned)


@pytest.mark.parametrize("how", ["grows", "changes", "goes", "the tree's own changes"])
def test_what_changes_meanwhile_is_looked_at_again(home: Home, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Nothing of what was looked at before is written; the next turn brings what there is then."""
    one = Mirroring(home, both_ways=False)
    old = write(home.old / f"{A}.json", context("newer"), NOW - HOUR)
    write(home.old / "archives" / C / "archive_1.json", b"[1]")
    at = old.stat()

    def change() -> None:
        if how == "grows":
            write(old, context("newest and longer"), NOW - HOUR + 1)
        elif how == "changes":  # as by somebody who sets the clock back: only the content tells
            with old.open("r+b") as file:
                file.write(context("other"))
            os.utime(old, ns=(at.st_atime_ns, at.st_mtime_ns))
        elif how == "goes":
            old.unlink()
        else:
            write(home.live(1), context("by the runtime", zipped=True), NOW)

    changing(monkeypatch, change)
    mirrored = one.turn()
    assert [f"archives/{C}/archive_1.json"] == [step.file.path for step in mirrored.brought]
    assert {old.name} == mirrored.again
    assert context("by the runtime" if how == "the tree's own changes" else "a") == text_of(home.live(1))
    one.turn(mirrored.again)
    expected = {
        "grows": "newest and longer",
        "changes": "other",
        "goes": "a",
        "the tree's own changes": "by the runtime",
    }
    assert context(expected[how]) == text_of(home.live(1))
    assert one.rests()


def test_what_is_damaged_again_is_set_aside_again(home: Home) -> None:
    """Beside the first: nothing that is in quarantine is overwritten."""
    one = Mirroring(home, both_ways=False)
    for number, body in enumerate((b"{", b"[", b"{")):
        write(home.old / f"{A}.json", body, NOW - HOUR + number)
        assert ["set aside"] == [step.deed.value for step in one.turn().brought]
    aside = sorted(home.root.glob(".quarantine/*/item/contexts/*"))
    assert [(f"{A}.json", b"{"), (f"{A}.json-1", b"["), (f"{A}.json-2", b"{")] == [
        (path.name, path.read_bytes()) for path in aside
    ]


def test_something_in_the_way_is_told_of_once(home: Home) -> None:
    """It is not tried again before the file changes, or the mirror begins anew."""
    one = Mirroring(home, both_ways=False)
    write(home.old / "notes", b"one")
    (home.agents / "notes").mkdir()
    found = one.turn().findings
    assert [("legacy_unread", str(home.old / "notes"))] == [(one.kind, one.path) for one in found]
    assert [] == one.turn().findings
    (home.agents / "notes").rmdir()
    write(home.old / "notes", b"two", NOW - HOUR)
    assert ["notes"] == [step.file.path for step in one.turn().brought]


def test_a_directory_is_no_file_that_was_noticed(home: Home) -> None:
    """Nor are temporary files of our own, what lies elsewhere in the tree, and what has gone since."""
    one = Mirroring(home, both_ways=True)
    (home.old / "deep").mkdir()
    write(home.old / ".datad-x.tmp", b"x")
    write(home.root / "logs" / "x.log", b"x")
    (home.agents / "deep").mkdir()
    before = everything(home.root, home.old)
    turned = one.turn({"deep", ".datad-x.tmp", "gone"}, {"logs/x.log", "state/agents/deep", "state/agents/gone"})
    assert ([], [], before) == (turned.brought, turned.returned, everything(home.root, home.old))


def test_what_changes_on_its_way_back_waits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the tree that is written while it is read, and one whose other side was written as well."""
    one = Mirroring(home, both_ways=True)
    write(home.live(1), context("ours", zipped=True), NOW - HOUR)
    write(home.old / f"{A}.json", context("theirs"), NOW - HOUR / 2)
    hints = {f"state/agents/{home.live(1).name}"}
    assert [] == one.turn(set(), hints).returned
    assert (context("theirs"), context("ours")) == ((home.old / f"{A}.json").read_bytes(), text_of(home.live(1)))
    one.turn()
    assert context("theirs") == text_of(home.live(1))
    write(home.live(2), context("once", zipped=True), NOW - HOUR)

    def writing(fd: int, size: int) -> Iterable[bytes]:
        yield from pieces(fd, size)
        write(home.live(2), context("twice, and longer", zipped=True), NOW - HOUR / 2)

    monkeypatch.setattr(returning, "pieces", writing)
    assert [] == one.turn().returned
    monkeypatch.undo()
    assert [f"{B}.json"] == one.turn().returned
    assert context("twice, and longer") == (home.old / f"{B}.json").read_bytes()


def fill_up(disk: Path) -> Path:
    """A file that takes all the room that is left there, and is no legacy data."""
    free = os.statvfs(disk)
    filler = disk / ".datad-filler.tmp"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
    return filler


def test_a_full_disk_below_the_tree_holds_a_mirror_up(home: Home) -> None:
    """It is said, nothing is half written or left over, and it goes on when there is room again."""
    home.root.parent.mkdir()
    with small_disk(home.root, "1m") as disk:
        one = Mirroring(home, both_ways=False)
        filler = fill_up(disk)
        write(home.old / f"{C}.json", context("c" * 20_000), NOW - HOUR)
        before = everything(home.agents)
        with pytest.raises(NoRoom, match="no space is left"):
            one.turn()
        assert before == everything(home.agents)
        assert [] == [path for path in home.root.rglob(".quarantine/**/*") if path.is_file()]
        filler.unlink()
        assert [f"{C}.json"] == [step.file.path for step in one.turn().brought]


def test_a_full_disk_below_the_old_place_holds_a_mirror_up(tmp_path: Path) -> None:
    """The same, the other way."""
    home = Home(tmp_path)
    home.old.parent.mkdir(parents=True)
    with small_disk(home.old, "1m") as disk:
        write(home.old / f"{A}.json", context("a"), NOW - HOUR)
        one = Mirroring(home, both_ways=True)
        filler = fill_up(disk)
        write(home.live(3), context("c" * 20_000, zipped=True), NOW - HOUR)
        before = everything(home.old)
        with pytest.raises(OSError, match="No space left"):
            one.turn()
        assert before == everything(home.old)
        filler.unlink()
        assert [f"{C}.json"] == one.turn().returned


@pytest.mark.parametrize("since", [False, True])
def test_an_undo_of_a_mirror_that_was_killed_is_ended_by_another(home: Home, since: bool) -> None:
    """What is back in the old place already is no file that somebody wrote; what was written since is."""
    first = everything(home.old)
    one = Mirroring(home, both_ways=True)
    write(home.live(1), context("ours", zipped=True), NOW - HOUR)
    one.turn()

    def until_it_is_back() -> None:
        Journal.forget_returned = die  # type: ignore[method-assign]
        home.undo()

    dies(until_it_is_back)
    if since:
        write(home.old / f"{A}.json", context("since"), NOW)
    undone, _ = home.undo()
    old = str(home.old / f"{A}.json")
    assert ([old] if since else []) == [path for path in undone.kept if path.startswith("/")]
    assert since or first == everything(home.old)


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
