"""What the daemon keeps of old places, one turn after the other."""

import gzip
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symbiont_datad.errors import Locked
from symbiont_datad.fsops.notice import Noticed
from symbiont_datad.migrate import keeping, planning
from symbiont_datad.migrate.compat import keep_working
from symbiont_datad.migrate.keeping import NOTHING_LEFT, Keeping
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.migration import alone, open_journal
from symbiont_datad.migrate.target import Compat
from symbiont_datad.report import Action
from tests.migrate.making import HOUR, NOW, Home, agent, context, write

A, B, C = agent(1), agent(2), agent(3)


@dataclass
class Kept:
    """A home whose old places are kept, and what was written down of that."""

    home: Home
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeping = Keeping(self.home.target, self._record)

    def _record(self, actions: Sequence[Action]) -> None:
        self.actions += actions

    def turn(self, noticed: Noticed | None = None) -> float:
        """One turn; after how long the next is due."""
        return self.keeping.turn(noticed or Noticed())

    def told(self) -> list[tuple[str, str]]:
        """The actions since this was asked last: kind and path."""
        told, self.actions = [(one.kind, one.path) for one in self.actions], []
        return told


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """A home whose old place, with one context, was brought over; it does not go on working."""
    home = Home(tmp_path.resolve())
    write(home.old / f"{A}.json", context("a"), NOW - 9 * HOUR)
    home.migrate()
    kept = Kept(home)
    yield kept
    kept.keeping.close()


def go_on(home: Home, compat: Compat, *, both_ways: bool = False, source: Source | None = None) -> None:
    """Have the old place go on working like that, as the command does."""
    with alone(home.target), open_journal(home.target) as journal:
        row = journal.source(source or home.source())
        assert row is not None
        assert keep_working(row, home.target, journal, compat, both_ways=both_ways, left=False) is None


def states(kept: Kept) -> list[tuple[str, str]]:
    """The old places that are told of, and how they go on working."""
    return [(one.path, one.compat) for one in kept.keeping.states()]


def test_where_nothing_is_kept_nothing_is_looked_at_again(kept: Kept, tmp_path: Path) -> None:
    """No migration at all, one without a way to go on, one that is being taken back."""
    nobody = Kept(Home(tmp_path / "nobody"))
    assert (NOTHING_LEFT, ()) == (nobody.turn(), nobody.keeping.states())
    nobody.keeping.close()
    assert (NOTHING_LEFT, [(str(kept.home.old), "none")]) == (kept.turn(), states(kept))
    with open_journal(kept.home.target) as journal:
        journal.put("undoing", "yes")
    assert (NOTHING_LEFT, ()) == (kept.turn(), kept.keeping.states())
    assert [] == kept.told()


def test_a_turn_waits_for_a_command_and_gives_way(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says who is at work; nothing is touched meanwhile."""
    monkeypatch.setattr(keeping, "_PATIENCE_S", 0.0)
    with alone(kept.home.target), pytest.raises(Locked, match="another migration is under way"):
        kept.turn()


def test_a_link_is_put_right(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    """It comes again; a directory in its place comes over; what else is there stays. Each is told of once."""
    old = kept.home.old
    go_on(kept.home, Compat.SYMLINK)
    assert (keeping._LINKS_S, [(str(old), "symlink")], []) == (kept.turn(), states(kept), kept.told())
    old.unlink()
    kept.turn()
    assert (str(kept.home.agents), [("legacy_link_restored", str(old))]) == (os.readlink(old), kept.told())
    old.unlink()
    write(old / f"{B}.json", context("anew"), NOW - HOUR)
    kept.turn()
    assert (str(kept.home.agents), context("anew")) == (
        os.readlink(old),
        gzip.decompress(kept.home.live(2).read_bytes()),
    )
    aside = old.with_name("contexts.before-migration-1")
    assert [f"{B}.json"] == os.listdir(aside)
    assert [("context_converted", f"state/agents/{B}.json.gz"), ("legacy_link_restored", str(old))] == kept.told()
    old.unlink()
    old.write_bytes(b"somebody's")
    capsys.readouterr()
    kept.turn()
    kept.turn()
    assert (b"somebody's", [], 1) == (old.read_bytes(), kept.told(), capsys.readouterr().out.count("obstructed"))


def test_a_place_that_has_gone_with_all_above_it_is_trouble(kept: Kept) -> None:
    """Nothing is there in which a link could be made: it is raised, and the migration is still known."""
    go_on(kept.home, Compat.SYMLINK)
    shutil.rmtree(kept.home.old.parent)
    with pytest.raises(FileNotFoundError):
        kept.turn()
    assert kept.home.target.journal_path.exists()


def test_hints_bring_single_files(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the old place, at its top and below, and of the tree; also what is noticed while hints are gathered."""
    home, old = kept.home, kept.home.old
    write(old / "archives" / A / "archive_1.json", b"[1]")
    go_on(home, Compat.MIRROR, both_ways=True)
    kept.turn()
    assert ([("archive_migrated", f"state/agents/archives/{A}/archive_1.json")], [(str(old), "mirror")]) == (
        kept.told(), states(kept),
    )  # fmt: skip
    write(old / f"{B}.json", context("b"), NOW - HOUR)
    noticed = kept.keeping.notices.wait(10.0)
    monkeypatch.setattr(time, "sleep", lambda _: write(old / "archives" / A / "archive_2.json", b"[2]"))
    kept.turn(noticed)
    assert {f"state/agents/{B}.json.gz", f"state/agents/archives/{A}/archive_2.json"} == {
        path for _, path in kept.told()
    }
    monkeypatch.setattr(time, "sleep", lambda _: None)
    kept.turn(kept.keeping.notices.wait(0.0))  # of what it has written itself nothing comes of it
    assert [] == kept.told()
    write(home.live(3), context("c", zipped=True), NOW - HOUR)
    kept.turn(kept.keeping.notices.wait(10.0))
    assert ([("legacy_returned", f"{old}/{C}.json")], context("c")) == (kept.told(), (old / f"{C}.json").read_bytes())
    kept.turn(kept.keeping.notices.wait(0.0))
    assert 0 < kept.turn() <= keeping._SCAN_S


def test_a_scan_finds_what_no_notice_told_of(kept: Kept) -> None:
    """When a directory is new, when notices were lost, and when somebody else was at work."""
    old = kept.home.old
    go_on(kept.home, Compat.MIRROR)
    kept.turn()
    for number, noticed in enumerate((None, Noticed(changed={0}), Noticed(lost=True), None), 2):
        write(old / f"{agent(number)}.json", context("x"), NOW - HOUR)
        while kept.keeping.notices.wait(0.0).files:
            pass
        if number == 5:
            kept.keeping.doubt()
        kept.turn(noticed)
        came = {2: [], 3: [2, 3]}.get(number, [number])
        assert [f"state/agents/{agent(one)}.json.gz" for one in came] == sorted(path for _, path in kept.told())


def test_what_is_left_and_what_differs_is_told(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    """A conflict each time; a file that can't come over once, however often somebody writes to it."""
    home, old = kept.home, kept.home.old
    go_on(home, Compat.MIRROR)
    write(old / "notes", b"one")
    (home.agents / "notes").mkdir()
    write(old / f"{A}.json", context("theirs"), NOW - HOUR)
    write(home.live(1), context("ours", zipped=True), NOW - 2 * HOUR)
    kept.turn()
    write(old / "notes", b"two", NOW - HOUR)
    kept.keeping.doubt()
    kept.turn()
    said = capsys.readouterr().out
    assert (1, 1) == (said.count("mirror_conflict"), said.count("mirror_left"))
    (state,) = kept.keeping.states()
    assert ("mirror", 2, 1) == (state.compat, state.files, state.conflicts)


def test_half_written_files_are_looked_at_again_soon(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when everything is scanned; and a mirror that goes one way now forgets what it knew of the other."""
    monkeypatch.setattr(planning, "SETTLE_S", HOUR)  # it is young however slow this is
    old = kept.home.old
    go_on(kept.home, Compat.MIRROR, both_ways=True)
    kept.turn()
    (old / f"{B}.json").write_bytes(b"{")
    assert keeping._AGAIN_S == kept.turn(Noticed(files={(0, f"{B}.json")}))
    write(old / f"{B}.json", context("whole"), NOW - HOUR)
    assert keeping._AGAIN_S < kept.turn()
    assert [("context_converted", f"state/agents/{B}.json.gz")] == kept.told()
    go_on(kept.home, Compat.MIRROR)
    write(kept.home.live(3), context("c", zipped=True), NOW - HOUR)
    kept.turn()
    assert ([], False) == (kept.told(), (old / f"{C}.json").exists())


def test_single_logs_are_mirrored_and_their_directory_is_not_searched(kept: Kept) -> None:
    """Of a place in which only some files are legacy data, what is below is none of it."""
    logs = kept.home.base / "project" / "logs"
    source = Source(str(logs), Kind.LOGS, ("model_io.encrypted.log",))
    write(logs / "model_io.encrypted.log", b"{}\n")
    write(logs / "other" / "x.log", b"x")
    kept.home.migrate(source)
    go_on(kept.home, Compat.MIRROR, source=source)
    kept.turn()
    with (logs / "model_io.encrypted.log").open("ab") as file:
        file.write(b"{}\n")
    (logs / "other" / "x.log").write_bytes(b"y")
    noticed = kept.keeping.notices.wait(10.0)
    assert {"model_io.encrypted.log"} == {name for _, name in noticed.files}
    kept.turn(noticed)
    assert ([("log_migrated", "logs/system/model_io.encrypted.log")], b"{}\n{}\n") == (
        kept.told(), (kept.home.root / "logs/system/model_io.encrypted.log").read_bytes(),
    )  # fmt: skip
