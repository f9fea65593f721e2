"""A daemon and the time before its tree: it tells, it migrates if asked, it keeps links and mirrors."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symbiont_datad.live import read_state
from tests.migrate.making import HOUR, NOW, agent, context, write
from tests.process.running import COMMAND, Daemon, running, until

pytestmark = pytest.mark.slow

A, B = agent(1), agent(2)
MIRROR_S = float(os.environ.get("DATAD_MIRROR_S", "5"))
"""So long somebody writes to a mirrored place."""
IDLE_S = float(os.environ.get("DATAD_IDLE_S", "5"))
"""So long a mirror is watched that has nothing to do."""

WRITER = """
import json, os, random, sys, time
place, seconds, body = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
dice, end, number = random.Random(1), time.monotonic() + seconds, 0
while time.monotonic() < end:
    number += 1
    agent = dice.randrange(20)
    path = f"{place}/00000000-0000-4000-8000-{agent:012x}.json"
    if os.path.exists(path):  # as the runtime saves: a backup first, then over the file itself
        with open(path, "rb") as old, open(f"{path[:-5]}.backup.{1_800_000_000 + number}.json", "wb") as backup:
            backup.write(old.read())
    with open(path, "wb") as file:
        file.write(json.dumps(body | {"metadata": {"n": str(number)}}, indent=2).encode())
        os.fsync(file.fileno())
    time.sleep(dice.random() * 0.02)
print(number)
"""


OFTEN = {"WATCHDOG_USEC": "1500000"}
"""Has the main loop turn every half second."""


def settings(old: Path, more: str = "") -> str:
    """A daemon that knows of an old place, and says more than usual."""
    return f'[migration]\nlegacy = ["{old}"]\n{more}\n[logging]\nlevel = "debug"\n'


def command(daemon: Daemon, *words: str | Path) -> str:
    """Type a command for the daemon's tree."""
    done = subprocess.run(
        [*COMMAND, "--config", daemon.config, "--root", daemon.root, *words],
        capture_output=True, text=True, env={**os.environ, "HOME": str(daemon.root.parent)}, cwd=daemon.root.parent,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return done.stdout


def legacy(daemon: Daemon) -> dict[str, str]:
    """What the status says of old places."""
    return {one["path"]: one["compat"] for one in json.loads(command(daemon, "status", "--json"))["legacy"]}


def plain(path: Path) -> bytes:
    """A context, unpacked; empty where it can't be read just now."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError):
        return b""


def test_legacy_data_is_told_of_once_and_left_alone(tmp_path: Path) -> None:
    """With the command to run; after that has run, nothing is told any more."""
    old = tmp_path / "contexts"
    write(old / f"{A}.json", context())
    with running(tmp_path, settings(old), environ=OFTEN) as daemon:
        told = daemon.wait_for_event("legacy_data_found")
        assert (str(old), "contexts", "symbiont-datad migrate") == (told["path"], told["kind"], told["command"])
        assert {str(old): "not migrated"} == until(lambda: legacy(daemon))
        assert [] == list((daemon.root / "state" / "agents").iterdir())
        assert 1 == len(daemon.events("legacy_data_found"))
        command(daemon, "migrate", "--yes")
        until(lambda: legacy(daemon) == {str(old): "none"}, 30.0)
    with running(tmp_path, settings(old), environ=OFTEN) as daemon:
        until(lambda: legacy(daemon) == {str(old): "none"}, 30.0)
        assert [] == daemon.events("legacy_data_found")


def test_it_migrates_by_itself_if_asked(tmp_path: Path) -> None:
    """At start, as a job with a row in the ledger, and what is asked for goes on."""
    old = tmp_path / "contexts"
    write(old / f"{A}.json", context())
    with running(tmp_path, settings(old, 'automatic = true\ncompat = "symlink"')) as daemon:
        daemon.wait_for_event("job_finished", job="migrate")
        assert context() == plain(daemon.root / "state" / "agents" / f"{A}.json.gz")
        assert str(daemon.root / "state" / "agents") == os.readlink(old)
        assert [f"state/agents/{A}.json.gz"] == daemon.recorded("context_converted")
        assert [] == daemon.events("legacy_data_found")


def test_a_link_is_kept(tmp_path: Path) -> None:
    """When it has gone it is made again; what was written to a directory in its place comes over."""
    old = tmp_path / "contexts"
    write(old / f"{A}.json", context())
    with running(tmp_path, settings(old, 'automatic = true\ncompat = "symlink"')) as daemon:
        daemon.wait_for_event("job_finished", job="migrate")
        old.unlink()
        daemon.wait_for_event("legacy_link_restored", 40.0)
        assert old.is_symlink()
        old.unlink()
        write(old / f"{B}.json", context("anew"), NOW - HOUR)
        daemon.wait_for_event("legacy_link_restored", 40.0, count=2)
        assert context("anew") == plain(daemon.root / "state" / "agents" / f"{B}.json.gz")
        assert context("anew") == (tmp_path / "contexts.before-migration-1" / f"{B}.json").read_bytes()
        assert {str(old): "symlink"}.items() <= until(lambda: legacy(daemon), 30.0).items()
    state = read_state(tmp_path / "datad")
    assert state is not None


def mirrored(tmp_path: Path, seconds: float) -> None:
    """Write to a mirrored place, and to the tree as well; see that both come to the same and then rest."""
    old, body = tmp_path / "contexts", json.loads(context())
    write(old / f"{A}.json", context())
    with running(tmp_path, settings(old, 'automatic = true\ncompat = "mirror"\nboth_ways = true')) as daemon:
        daemon.wait_for_event("job_finished", job="migrate")
        agents = daemon.root / "state" / "agents"
        write(old / f"{B}.json", context("there"))
        until(lambda: plain(agents / f"{B}.json.gz") == context("there"), 20.0)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(old), str(seconds), json.dumps(body)], stdout=subprocess.PIPE, text=True
        )
        dice, ours, number = random.Random(2), dict[str, bytes](), 0
        while writer.poll() is None:
            number += 1
            name = agent(100 + dice.randrange(5))
            ours[name] = context(f"by the runtime {number}")
            (agents / f"{name}.json.gz").write_bytes(gzip.compress(ours[name]))
            time.sleep(0.05)
        assert int(writer.communicate()[0]) > 0
        last = {path.stem: path.read_bytes() for path in old.glob("*.json") if ".backup." not in path.name}

        def same() -> bool:
            there = {name: plain(agents / f"{name}.json.gz") for name in last | ours}
            here = {name: plain(old / f"{name}.json") for name in last | ours}
            return there == here == last | ours

        until(same, 30.0)
        until(lambda: _rests(daemon), 30.0)
        assert same()
        assert [] == daemon.events("mirror_conflict")
        assert [] == daemon.events("mirror_failed")
        kept = {path.read_bytes() for path in old.glob("*.backup.*")}
        seen = {path.read_bytes() for path in [*agents.glob("*.backup.*"), *daemon.root.glob(".quarantine/*/item/*/*")]}
        rotated = set(daemon.recorded("backup_rotated"))
        lost = [path for path in old.glob("*.backup.*") if path.read_bytes() not in seen]
        assert [] == [path for path in lost if f"state/agents/{path.name}" not in rotated]
        assert kept


def _rests(daemon: Daemon) -> bool:
    """Whether nothing was brought to either side for some seconds."""
    before = len(daemon.events("mirror_brought"))
    time.sleep(4.0)
    return before == len(daemon.events("mirror_brought"))


@pytest.mark.timeout(3600)
def test_a_mirror_under_a_writer(tmp_path: Path) -> None:
    """Nothing lost, nothing going to and fro, both sides the same in seconds after the last write."""
    mirrored(tmp_path, MIRROR_S)


@pytest.mark.timeout(3600)
def test_an_idle_mirror_costs_next_to_nothing(tmp_path: Path) -> None:
    """With many files on both sides: less than 0.2 % of a core, and what one scan costs."""
    old = tmp_path / "contexts"
    for number in range(500):
        write(old / f"{agent(number)}.json", context())
    quiet = "auto_save_interval = 3600\n[schedule]\nusage_interval = 3600\nretention_interval = 3600\n"
    more = 'automatic = true\ncompat = "mirror"\nboth_ways = true'
    with running(tmp_path, quiet + settings(old, more)) as daemon:
        daemon.wait_for_event("job_finished", 60.0, job="migrate")
        until(lambda: legacy(daemon).get(str(old)) == "mirror", 30.0)
        until(lambda: not daemon.children(), 60.0)
        time.sleep(3.0)
        before = _cpu_s(daemon)
        time.sleep(IDLE_S)
        assert _cpu_s(daemon) - before < 0.002 * IDLE_S + 0.2


def _cpu_s(daemon: Daemon) -> float:
    """Processor time of the daemon's threads so far."""
    tasks = Path(f"/proc/{daemon.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
