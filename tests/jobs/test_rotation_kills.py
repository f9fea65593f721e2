"""Rotations killed at every call and at random moments: no line is lost or doubled, and the next run needs no help."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.jobs.audit_chain import verify
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.ledger import Ledger
from tests.jobs.log_writing import archives_of, assert_stream, holding, lines, log_settings_for, until_larger, writing
from tests.jobs.making import NOW, run
from tests.jobs.mounts import mounted
from tests.jobs.rotating import How, Trouble, met, start

KILLS = int(os.environ.get("DATAD_ROTATION_KILLS", "40"))
"""So many rotations are killed at random moments, of each way. DATAD_ROTATION_KILLS=300 is for a night, and tries more
ways call by call."""
SEED = int(os.environ.get("DATAD_SEED", "0")) or random.randrange(1, 1 << 32)
"""DATAD_SEED=… does again what failed; the moments are then as alike as clocks allow."""

_LINES = 700
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def assert_tidy(settings: JobSettings, log: Path) -> None:
    """Nothing is left of what was killed, and the manifest of audit archives is whole."""
    names = os.listdir(log.parent)
    assert [] == [name for name in names if name.startswith(".")]
    assert not (settings.daemon_dir / "rotation.json").exists()
    assert [] == verify(settings)
    with Ledger(settings.ledger_path) as ledger:
        assert ledger.actions()


WITHIN = (How.KILLED_WITHIN, How.FAILS_WITHIN)

WAYS: dict[str, dict[str, Any]] = {
    "collapse": {},
    "collapse, delayed": {"delay_compress": True},
    "collapse, audit": {},
    "rename": {},
    "rename, uncompressed": {"compress": "none"},
    "rename, audit": {"compress": "gzip"},
    "rename, audit, uncompressed": {"compress": "none"},
    "copy and truncate": {"allow_copytruncate": True},
    "copy and truncate, audit": {"allow_copytruncate": True},
}


SHORT = ("collapse", "collapse, audit", "rename, audit", "copy and truncate")
"""The ways that are tried call by call where time is short: they come through each step."""


@contextmanager
def prepared(way: str, base: Path) -> Iterator[tuple[JobSettings, Path]]:
    """Settings and a log of `_LINES` lines that is rotated that way."""
    with mounted("ext4" if way.startswith("collapse") else "tmpfs", base) as place:
        settings = log_settings_for(place, **WAYS[way])
        log = place / "data/logs" / ("audit" if "audit" in way else "system") / "a.log"
        log.write_bytes(lines(_LINES))
        with holding(log) if not way.startswith("rename") else nullcontext():
            yield settings, log


def began_anew(settings: JobSettings, log: Path) -> None:
    """The same log once more, in the same tree, and nothing else."""
    for name in os.listdir(log.parent):
        if name != log.name:
            (log.parent / name).unlink()
    log.write_bytes(lines(_LINES))
    for name in ("rotation.json", "audit-chain.json"):
        (settings.daemon_dir / name).unlink(missing_ok=True)


def finished(settings: JobSettings, log: Path, where: str) -> None:
    """A line is written, the next run is left alone: then all is as it should be."""
    with log.open("ab") as file:
        file.write(lines(1, _LINES))
    report = run("rotate", settings, now=NOW + 1).report
    assert () == report.findings, f"{where}: {report}"
    assert_stream(log, _LINES + 1, where)
    assert_tidy(settings, log)


@pytest.mark.parametrize(
    ("way", "how"),
    [
        pytest.param(way, how, id=f"{way}: {how.value}")
        for way in (WAYS if KILLS >= 100 else SHORT)
        for how in How
        if how not in WITHIN or not way.startswith("rename")
    ],
)
def test_trouble_at_each_call_needs_no_help(
    tmp_path: Path, way: str, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each call that changes something, one after another, or refused it: the next run puts all right."""
    monkeypatch.setattr("symbiont_datad.jobs.rotation.SETTLE_S", 0.01)
    with prepared(way, tmp_path) as (settings, log):
        number = 1
        while met(settings, trouble := Trouble(number, how)):
            finished(settings, log, f"{way}, {trouble}")
            began_anew(settings, log)
            number += 1
        assert number > (2 if how in WITHIN else 5)
        assert 1 <= len(archives_of(log))
        assert_stream(log, _LINES)


@pytest.mark.parametrize("way", ["collapse", "collapse, audit", "rename, audit", "copy and truncate"])
def test_a_kill_of_the_recovery_needs_no_help_either(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was killed at some call, and again while that was put right: the run after both puts all right."""
    monkeypatch.setattr("symbiont_datad.jobs.rotation.SETTLE_S", 0.01)
    chance = random.Random(SEED)
    with prepared(way, tmp_path) as (settings, log):
        for _ in range(KILLS // 2):
            one = Trouble(chance.randrange(8, 45), chance.choice([*How]))
            two = Trouble(chance.randrange(1, 14), chance.choice([*How]))
            met(settings, one)
            met(settings, two, now=NOW + 0.5)
            finished(settings, log, f"{way}, {one}, then {two}, seed {SEED}")
            began_anew(settings, log)


@pytest.mark.parametrize(
    ("kind", "how", "other"),
    [
        pytest.param("ext4", "append", {}, id="ext4, collapse"),
        pytest.param("xfs", "append", {"delay_compress": True}, id="xfs, collapse"),
        pytest.param("ext4", "reopen", {}, id="ext4, rename"),
        pytest.param("tmpfs", "reopen", {"compress": "none"}, id="tmpfs, rename"),
    ],
)
def test_kills_at_random_moments_under_a_writer(tmp_path: Path, kind: str, how: str, other: dict[str, Any]) -> None:
    """While a process writes line after line, rotations are killed one after another: archives and live log are the
    stream, line by line.
    """
    chance = random.Random(SEED)
    with mounted(kind, tmp_path) as place:
        settings = log_settings_for(place, **other)
        log = place / "data/logs/system/a.log"
        with writing(log, how, rate=20_000) as writer:
            for _ in range(KILLS):
                until_larger(log, 30_000)
                process = start(settings, endless=True)
                process.join(chance.uniform(0.0, 0.12))
                process.kill()
                process.join()
                assert -signal.SIGKILL == process.exitcode
            count = writer.stop()
        run("rotate", settings)
        assert_stream(log, count, f"seed {SEED}")
        assert_tidy(settings, log)
        assert archives_of(log)


def test_kills_at_random_moments_of_a_copy_that_is_cut(tmp_path: Path) -> None:
    """Copy and truncate, killed at random moments while nobody writes: nothing is lost, torn or doubled either."""
    chance = random.Random(SEED)
    with mounted("tmpfs", tmp_path) as place:
        settings = log_settings_for(place, allow_copytruncate=True)
        log = place / "data/logs/system/a.log"
        log.touch()
        count = 0
        with holding(log):
            for number in range(KILLS):
                with log.open("ab") as file:
                    file.write(lines(300, count))
                count += 300
                process = start(settings, now=NOW + number)
                process.join(chance.uniform(0.0, 0.05))
                process.kill()
                process.join()
            run("rotate", settings, now=NOW + KILLS)
        assert_stream(log, count, f"seed {SEED}")
        assert_tidy(settings, log)


INJECTED = """
import sys
from pathlib import Path
from tests.jobs.log_writing import log_settings_for
from tests.jobs.making import run

settings = log_settings_for(Path(sys.argv[1]))
run("rotate", settings)
"""


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        pytest.param("fallocate", "signal=KILL:when=2", id="killed at the collapse"),
        pytest.param("fallocate", "error=EINTR:when=2", id="the collapse is interrupted"),
        pytest.param("fallocate", "error=EOPNOTSUPP:when=2", id="the collapse is not possible after all"),
        pytest.param("pwrite64", "signal=KILL:when=1", id="killed at the blanking"),
        pytest.param("pwrite64", "error=EIO:when=1", id="the blanking fails"),
        pytest.param("renameat2", "signal=KILL:when=1", id="killed at the naming"),
        pytest.param("fdatasync", "error=EIO:when=1", id="the log can't be flushed"),
    ],
)
def test_faults_of_the_system_at_named_calls(tmp_path: Path, call: str, fault: str) -> None:
    """Killed or refused by the kernel at one system call of a collapse: the next run finds nothing lost or doubled."""
    with mounted("ext4", tmp_path) as place:
        settings = log_settings_for(place)
        log = place / "data/logs/system/a.log"
        log.write_bytes(lines(_LINES))
        with holding(log):
            inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
            if call in ("pwrite64", "fdatasync"):
                inject += ["-P", str(log)]  # SQLite makes these calls too
            command = [*inject, sys.executable, "-c", INJECTED, str(place)]
            path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
            done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=120)
            assert ("KILL" in fault) == (done.returncode == -signal.SIGKILL)
            finished(settings, log, f"{call}, {fault}")
