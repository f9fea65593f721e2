"""Rotation on real file systems: the way that each allows, and two hundred rotations under a fast writer."""

import os
from pathlib import Path

import pytest

from symbiont_datad.jobs import rotation
from symbiont_datad.report import Outcome
from tests.jobs.log_writing import archives_of, assert_stream, holding, lines, log_settings_for, until_larger, writing
from tests.jobs.making import NOW, run
from tests.jobs.mounts import KINDS, mounted

ROTATIONS = int(os.environ.get("DATAD_ROTATIONS", "200"))
COLLAPSES = {"ext4", "xfs", "overlayfs"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "SETTLE_S", 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_is_the_best_that_is_safe(tmp_path: Path, kind: str) -> None:
    """In append mode: collapse where that is possible, else left, or cut if allowed. With a place of its own: left and
    named. Opened for each line, or by nobody: renamed.
    """
    with mounted(kind, tmp_path) as place:
        system = place / "data/logs/system"
        settings = log_settings_for(place)
        for name in ("append", "place", "nobody"):
            (system / f"{name}.log").write_bytes(lines(1000))
        with (
            holding(system / "append.log"),
            holding(system / "place.log", "place") as misplaced,
            writing(system / "reopen.log", "reopen", rate=5_000) as reopening,
        ):
            until_larger(system / "reopen.log", 50_000)
            ran = run("rotate", settings)
            reopened = reopening.stop()
            by_name = {Path(one.path).stem: one.reason for one in ran.report.actions if one.kind == "log_rotated"}
            left = {Path(finding.path).stem: finding.detail for finding in ran.report.findings}
            assert {"place", *(["append"] if kind not in COLLAPSES else [])} == left.keys()
            assert f"process {misplaced} " in left["place"]
            assert {"nobody", "reopen", *(["append"] if kind in COLLAPSES else [])} == by_name.keys()
            assert "by rename, because nobody has it open" in by_name["nobody"]
            assert "by rename, because nobody has it open" in by_name["reopen"]
            if kind in COLLAPSES:
                assert "by collapse" in by_name["append"]
            else:
                assert "this file system can't take the head out of a file" in left["append"]
                cutting = log_settings_for(place, allow_copytruncate=True)
                ran = run("rotate", cutting, now=NOW + 1)
                (reason,) = [one.reason for one in ran.report.actions if one.path.endswith("append.log")]
                assert "by copy and truncate" in reason
            assert Outcome.LEFT is ran.report.outcome
        for name, count in (("append", 1000), ("place", 1000), ("nobody", 1000), ("reopen", reopened)):
            assert_stream(system / f"{name}.log", count, f"{kind}, {name}")
        assert [] == archives_of(system / "place.log")


@pytest.mark.parametrize("kind", sorted(COLLAPSES))
def test_many_rotations_under_a_writer_of_100_000_lines_a_second(tmp_path: Path, kind: str) -> None:
    """Held open in append mode: archives and live log are the exact stream, line by line."""
    with mounted(kind, tmp_path) as place:
        settings = log_settings_for(place)
        log = place / "data/logs/system/a.log"
        with writing(log) as writer:
            for _ in range(ROTATIONS if kind != "overlayfs" else ROTATIONS // 10):
                until_larger(log, 20_000)
                ran = run("rotate", settings)
                assert (Outcome.DONE, 1) == (ran.report.outcome, ran.report.counts["rotated"])
            count = writer.stop()
        assert_stream(log, count)
        assert len(archives_of(log)) >= ROTATIONS // 10


@pytest.mark.parametrize("kind", KINDS)
def test_many_rotations_under_a_writer_that_reopens(tmp_path: Path, kind: str) -> None:
    """Opened for each of its lines: the exact stream as well, on every file system."""
    with mounted(kind, tmp_path) as place:
        settings = log_settings_for(place)
        log = place / "data/logs/system/a.log"
        with writing(log, "reopen") as writer:
            for _ in range(ROTATIONS // 10):
                until_larger(log, 20_000)
                run("rotate", settings)  # a writer that is hardly ever seen closed may be left for the next time
            count = writer.stop()
        assert_stream(log, count)
        assert archives_of(log)
