"""Retention at work for weeks on a tree that changes at random: the ledger tells of everything that went, with its
reason, and of nothing else.
"""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.ledger_schema import Row
from symbiont_datad.report import printable
from symbiont_datad.retention.quarantine import QuarantineLimits
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for

ROUNDS = int(os.environ.get("DATAD_LONG_RUN", "60"))
"""Half days of the long run."""

RULES = (
    Rule("cache", "prompts/cache", 5 * DAY, 30_000, age_by=AgeBy.USED, cache=True, broken=True, protect=("**/keep*",)),
    Rule("history", "prompts/history", 9 * DAY, max_files=7, whole=True, pack_after_s=4 * DAY, protect=("**/pin*",)),
    Rule("logs", "logs", 6 * DAY, 40_000, keep_newest=True),
    Rule("traces", "logs/system", max_files=4, patterns=("*.trace",), keep_newest=True),
    Rule("sessions", "state/sessions", 8 * DAY, max_files=10),
)
GONE = ("file_removed", "file_quarantined", "directory_removed", "directory_quarantined", "day_packed")
COVERING = ("directory_removed", "directory_quarantined", "day_packed", "removal_undone")


def files_of(root: Path) -> set[str]:
    """Every file in the tree, but for the quarantine."""
    found = set()
    for folder, folders, names in os.walk(root):
        if folder == str(root):
            folders.remove(".quarantine") if ".quarantine" in folders else None
        found |= {os.path.relpath(os.path.join(folder, name), root) for name in names}
    return found


class World:
    """Agents that write, append, read and remove."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)

    def live(self, now: float) -> None:
        """Half a day of theirs."""
        for _ in range(self.random.randint(5, 25)):
            self.random.choice([self.write, self.write, self.write, self.touch, self.remove])(now)

    def write(self, now: float) -> None:
        """A new file somewhere, of any name, from some time in the last days."""
        age = self.random.uniform(0, 5 * DAY)
        name = self.random.choice(["a\nb", "\udcff", "keep", "pin", "x"]) + f"-{self.random.randrange(500)}"
        day = f"2026-{self.random.choice((10, 11))}-{self.random.randint(1, 28):02}"
        folder = self.random.choice(
            [
                "prompts/cache", "prompts/cache/sub", f"prompts/history/{day}", f"prompts/history/{day}/deep",
                "logs/system", "logs/agents/deep", "logs/audit", "state/sessions", "state/agents",
            ]
        )  # fmt: skip
        path = self.root / folder / (name + self.random.choice(["", ".trace", ".json", ".log"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.random.choice([0, 10, 3000])
        path.write_bytes(self.random.choice([b"x", b"\0", b"1"]) * size)
        os.utime(path, (now - age, now - age))

    def some(self) -> Path | None:
        """A file of theirs."""
        found = sorted(files_of(self.root))
        return self.root / self.random.choice(found) if found else None

    def touch(self, now: float) -> None:
        """Something is used."""
        path = self.some()
        if path is not None:
            os.utime(path, (now, now))

    def remove(self, _now: float) -> None:
        """They remove something themselves, now and then a whole day."""
        path = self.some()
        if path is None:
            return
        if "history" in str(path) and self.random.random() < 0.3:
            shutil.rmtree(path.parent)
        else:
            path.unlink()


def rows_since(settings: JobSettings, at: float) -> list[Row]:
    """What the ledger tells of a time."""
    with ledger_of(settings) as ledger:
        return [row for row in ledger.actions(since=at) if row.at == at]


def check_clean(settings: JobSettings, before: set[str], after: set[str], now: float) -> None:
    """What went has a row with a reason, found by its own path; each row names what was there and has gone."""
    rows = [row for row in rows_since(settings, now) if row.kind in GONE and row.state == "done"]
    told = {row.path for row in rows}
    assert all(row.reason and row.rule for row in rows)
    with ledger_of(settings) as ledger:
        for path in before - after:
            found = [row for row in ledger.actions(path=path, covering=COVERING) if row.at == now]
            assert found, path
            assert found[-1].kind in GONE
    names = {printable(path) for path in before}
    left = {printable(path) for path in after}
    for path in told:
        assert path in names or any(name.startswith(f"{path}/") for name in names) or path.count("/") >= 2
        assert path not in left or path.endswith(".tar.zst")  # another day of that name, packed in its place
        assert not any(name.startswith(f"{path}/") for name in left)
    assert not [row for row in rows_since(settings, now) if row.state == "planned"]
    assert {path for path in before if "audit" in path or path.startswith("state/agents")} <= after
    assert {path for path in before if "/keep" in path and "cache" in path} <= after


@pytest.mark.parametrize("rounds", [12, pytest.param(ROUNDS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("undo_window_s", [0.0, 2 * DAY])
def test_the_ledger_tells_of_all_that_went_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, undo_window_s: float
) -> None:
    """Half a day of random changes, a run of retention, and now and then an undo; compared with the disk each time."""
    settings = settings_for(
        tmp_path,
        *RULES,
        require_snapshot=False,
        undo_window_s=undo_window_s,
        quarantine=QuarantineLimits(3 * DAY, 100_000),
    )
    settings = replace(settings, layout=replace(settings.layout, days="prompts/history"))
    root = tmp_path / "data"
    seed = int(os.environ.get("DATAD_SEED", random.randrange(10**9)))
    monkeypatch.setenv("DATAD_SEED", str(seed))  # shown by pytest with what failed
    world, chance = World(root, seed), random.Random(seed + 1)
    removed = undone = 0
    ever: set[str] = set()
    for number in range(rounds):
        now = NOW + number * DAY / 2
        world.live(now)
        before = files_of(root)
        ever |= before
        plan = run("clean", settings, now=now, dry_run=True).report.actions
        assert before == files_of(root)
        ran = run("clean", settings, now=now)
        assert plan == ran.report.actions
        after = files_of(root)
        check_clean(settings, before, after, now)
        removed += len(before - after)
        if undo_window_s and chance.random() < 0.2:
            back = run("undo", settings, now=now + 60)
            if back.report.outcome != "failed":
                again = files_of(root)
                assert after <= again
                assert again - after <= ever
                undone += len(again - after)
    assert removed > (rounds if rounds > 20 else 0)
    assert undone or not undo_window_s or rounds < 20
