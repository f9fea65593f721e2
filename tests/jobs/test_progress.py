"""Jobs that take long count what they do, up to what they said they would do."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import Progress
from symbiont_datad.retention.logs import LogRule, LogSettings
from symbiont_datad.retention.rules import Rule
from tests import contexts
from tests.jobs.making import DAY, NOW, run, settings_for, write
from tests.jobs.snapshotting import cheap_repository


@dataclass(slots=True)
class Kept(Progress):
    """A progress that keeps the last of each phase: phase, files, bytes, and both totals."""

    phases: list[tuple[str, int, int, int, int]] = field(default_factory=list)

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Keep what was, and begin another one."""
        self.keep()
        Progress.begin(self, phase, total_files, total_bytes)

    def keep(self) -> None:
        """Keep what is now."""
        self.phases.append((self.phase, self.files, self.bytes, self.total_files, self.total_bytes))


def test_a_sweep(tmp_path: Path) -> None:
    """The files that it judges, and the backups that it removes."""
    settings = cheap_repository(settings_for(tmp_path))
    agents = tmp_path / "data/state/agents"
    for number in range(5):
        name = contexts.agent_id(f"agent {number}")
        write(agents / f"{name}.json.gz", contexts.zipped(contexts.context(f"agent {number}")), age_s=DAY)
        for backup in range(4):
            old = contexts.zipped(contexts.context(f"agent {number}", NOW - DAY))
            write(agents / f"{name}.json.backup.{1_700_000_000 + backup}.json", old, age_s=2 * DAY)
    size = sum(path.stat().st_size for path in agents.glob("*.json.gz"))
    kept = _phases("sweep", settings)
    assert (5, size, 5, size) == kept["check state"]
    assert (5, 5) == (kept["check backups"][0], kept["check backups"][2])
    assert (5, 5) == (kept["remove"][0], kept["remove"][2])
    assert kept["autosave"][0] > 0


def test_clean_and_undo(tmp_path: Path) -> None:
    """The files that go, and what comes back."""
    rule = Rule("history", "prompts/history", max_age_s=30 * DAY)
    settings = settings_for(tmp_path, rule, require_snapshot=False, undo_window_s=DAY)
    for number in range(7):
        write(tmp_path / f"data/prompts/history/2026-01-01/{number}.json", b"x" * 100, age_s=60 * DAY)
    assert (7, 700, 7, 700) == _phases("clean", settings)["remove"]
    assert (1, 700, 1, 700) == _phases("undo", settings)["bring back"]  # the directory, whole


def test_rotation(tmp_path: Path) -> None:
    """The bytes of the logs, whichever way they went, and of what is compressed."""
    rule = LogRule("logs", patterns=("**/*.log",), rotate_at=1000)
    logs = LogSettings(directory="logs", rules=(rule,), compress="zstd")
    settings = settings_for(tmp_path, logs=logs)
    size = 0
    for number in range(3):
        data = bytes(random.Random(number).choices(b"abcdefgh\n", k=5000)) + b"\n"
        write(tmp_path / f"data/logs/system/{number}.log", data, age_s=DAY)
        size += len(data)
    kept = _phases("rotate", settings)
    assert (3, size, 3, size) == kept["rotate"]
    assert (3, size, 3, size) == kept["compress"]


def test_the_first_backup_goes_by_the_usage(tmp_path: Path) -> None:
    """What was counted is about what there is to read."""
    settings = cheap_repository(settings_for(tmp_path))
    write(tmp_path / "data/state/agents/a.json", b"x" * 1000)
    run("usage", settings)
    assert (1, 1000, 1, 1000) == _phases("backup", settings)["backup"]


def _phases(job: str, settings: object) -> dict[str, tuple[int, int, int, int]]:
    """Run a job; hand back how each phase ended."""
    progress = Kept()
    run(job, settings, progress=progress)  # type: ignore[arg-type]
    progress.keep()
    return {phase: counted for phase, *rest in progress.phases for counted in [tuple(rest)]}  # type: ignore[misc]


@pytest.mark.parametrize("job", ["sweep", "clean", "rotate"])
def test_nothing_to_do_is_no_progress(tmp_path: Path, job: str) -> None:
    """An empty tree has no total that is never reached."""
    kept = _phases(job, cheap_repository(settings_for(tmp_path)))
    assert all((files, size) == (all_files, all_size) for files, size, all_files, all_size in kept.values())
