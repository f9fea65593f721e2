"""What must be true, after a while in which nobody does anything, and at the end."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from symbiont_datad.formats.rotated import rotated
from symbiont_datad.ledger import Ledger
from symbiont_datad.restic.find import Finder
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.repository import Repository, open_repository
from tests.jobs.log_writing import archives_of, content_of, line
from tests.process.running import until
from tests.torture.agents import append_one
from tests.torture.machine import PASSWORD, PATIENCE_S, Machine
from tests.torture.model import AGENTS, LOGS

_CREATED = "snapshot_created"
_RESIDENT_MIB, _MAY_GROW_MIB, _MAY_GROW_FDS = 160, 40, 24


def settle(machine: Machine) -> None:
    """Nobody does anything, there is room, and the network works: soon all is as it should be. Raises Violation."""
    machine.restore_order()
    model = machine.model
    try:
        until(machine.daemon.is_right, PATIENCE_S)
        until(lambda: not _not_healed(machine), PATIENCE_S)
    except TimeoutError:
        raise machine.violation(
            f"not right or not healed: {machine.daemon.is_right()} {_not_healed(machine)}"
        ) from None
    model.broken.clear()
    for name in AGENTS:
        path = machine.context(name)
        found = path.read_bytes() if path.exists() else None
        machine.check(found == model.saved.get(name), f"{name} ({path.name}) has other state than it saved")
    for written, content in model.history.items():
        machine.check((machine.root / written).read_bytes() == content, f"{written} is another one")
    for log in LOGS:
        append_one(machine, log, new=False)
    machine.hold_logs()
    _check_canary(machine)
    _check_cost(machine)


def _not_healed(machine: Machine) -> list[str]:
    def content(name: str) -> bytes:
        try:
            return machine.context(name).read_bytes()
        except FileNotFoundError:
            return b"missing"

    return [name for name in sorted(machine.model.broken) if content(name) != machine.model.saved[name]]


def _check_canary(machine: Machine) -> None:
    """What is outside the tree is as it was, to the nanosecond."""
    machine.check(os.listdir(machine.canary) == ["file"], f"in the canary: {os.listdir(machine.canary)}")
    machine.check((machine.canary / "file").read_text() == "untouched", "what is outside was written to")
    for path, was in zip((machine.canary, machine.canary / "file"), machine.canary_was, strict=True):
        now = os.lstat(path)
        same = (now.st_mode, now.st_uid, now.st_ctime_ns) == (was.st_mode, was.st_uid, was.st_ctime_ns)
        machine.check(same, f"{path} was touched: {was} {now}")


def _check_cost(machine: Machine) -> None:
    """Memory and descriptors are what they were when this daemon had been looked at first."""
    pid = machine.daemon.pid
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s*(\d+)", status)
    assert found is not None
    fds = 10**6
    for _ in range(10):  # a job that runs has some: what is open between jobs counts
        fds = min(fds, len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.02)
    machine.cost.append((int(found[1]) << 10, fds))
    (resident, fds), (first, few) = machine.cost[-1], machine.cost[0]
    machine.growth = max(machine.growth[0], resident - first), max(machine.growth[1], fds - few)
    machine.check(resident < _RESIDENT_MIB << 20, f"the daemon has {resident >> 20} MiB")
    machine.check(resident < first + (_MAY_GROW_MIB << 20), f"the daemon's memory grows: {machine.cost}")
    machine.check(fds <= few + _MAY_GROW_FDS, f"the daemon's descriptors grow: {machine.cost}")


def finish(machine: Machine) -> None:
    """Settle, end the daemon, and look at everything that it has left. Raises Violation."""
    settle(machine)
    for log in [*machine.writers]:
        machine.release_log(log)
    if machine.scene.s3:  # which refuses those whose clock is wrong
        machine.clock.set(0)
    try:
        code = machine.daemon.stop(timeout_s=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise machine.violation("it doesn't end") from None
    machine.check(code == 0, f"it ended with {code}")
    done = machine.run("rotate")
    machine.check(done.returncode in (0, 3), f"what a kill left of a rotation can't be put right: {done.stderr}")
    done = machine.run("backup", "--json")
    machine.check(done.returncode == 0, f"a last backup can't be made: {done.returncode} {done.stdout} {done.stderr}")
    made = [one["path"] for one in json.loads(done.stdout.splitlines()[-1])["actions"] if one["kind"] == _CREATED]
    with Ledger.for_reading(machine.root.parent / "datad/ledger.db") as ledger:
        removed = {row.path for row in ledger.actions(kinds=("file_removed", "file_quarantined"))}
        forgotten = {row.path for row in ledger.actions(kinds=("snapshot_forgotten",))}
    gone = {path for path in machine.model.cached if not (machine.root / path).exists()}
    machine.check(gone <= removed, f"gone without a row: {sorted(gone - removed)[:5]}")
    repository = open_repository(backend_at(machine.repository, machine.environ), PASSWORD)
    _check_snapshots(machine, repository, forgotten)
    for log, count in machine.model.lines.items():
        if count:
            _check_log(machine, repository, log, removed, forgotten)
    _check_with_restic(machine, made[0])
    tracebacks = [path for path in (machine.base / "own").glob("errors-*") if b"Traceback" in path.read_bytes()]
    machine.check(not tracebacks, f"{[path.read_text()[-2000:] for path in tracebacks]}")


def _check_snapshots(machine: Machine, repository: Repository, forgotten: set[str]) -> None:
    """Each snapshot that was told of is there, or the ledger says that it went; and all of them are whole."""
    events = [json.loads(entry) for log in machine.logs for entry in log.read_bytes().split(b"\n")[:-1]]
    told = {event["id"][:8] for event in events if event["event"] == _CREATED and event.get("id")}
    there = {name[:8] for name, _ in repository.snapshots()}
    machine.check(told <= there | forgotten, f"snapshots were lost: {sorted(told - there - forgotten)}")
    done = machine.run("verify", "--read-data")
    machine.check(done.returncode == 0, f"the repository is not whole: {done.stdout} {done.stderr}")


def _check_log(machine: Machine, repository: Repository, log: str, removed: set[str], forgotten: set[str]) -> None:
    """Archives and log are the lines that were written, each once and whole, in the order of the archives' names.

    What had to make room is taken from the snapshots that hold it, unless some were forgotten since. It goes where its
    lines say: names go on from the newest archive that is there, and when none is, from a clock that may be set back.
    """
    live = machine.root / log
    names = [path.name for path in archives_of(live)]
    parts = [content_of(live.parent / name) for name in names]
    parts.append(live.read_bytes() + machine.model.torn.get(log, b""))
    gone = sorted({one.rpartition("/")[2] for one in removed if one.rpartition("/")[0] == log.rpartition("/")[0]})
    finder, lost = Finder(repository), 0
    for name in gone:
        place = rotated(name)
        if place is None or place.live != live.name or name in names:
            continue
        content = _of_snapshots(repository, finder, live.parent / name)
        machine.check(content is not None or bool(forgotten), f"{name} was removed, and no snapshot holds it")
        if content is None:
            lost += 1
        else:
            begin = _first_number(content)
            later = (index for index, part in enumerate(parts) if _first_number(part) > begin)
            parts.insert(next(later, len(parts)), content)
    number = 0
    for one in b"".join(parts).splitlines(keepends=True):
        if not one.strip():
            continue
        if lost and one != line(number) and _number_of(one) > number:
            number, lost = _number_of(one), lost - 1
        wrong = f"{log} lost, doubled or tore lines: instead of line {number} there is {one[:80]!r} in {names}"
        machine.check(one == line(number), wrong)
        number += 1
    count = machine.model.lines[log]
    machine.check(number == count or (lost > 0 and number < count), f"{log} ends with line {number}, not {count}")


def _first_number(part: bytes) -> float:
    """The number of the first line that is whole; beyond all if none is."""
    for one in part.splitlines(keepends=True):
        number = _number_of(one)
        if number >= 0 and one == line(number):
            return number
    return float("inf")


def _number_of(one: bytes) -> int:
    """The number that a line says it has; -1 when it says none."""
    found = re.search(rb"\d+", one)
    return int(found[0]) if found else -1


def _of_snapshots(repository: Repository, finder: Finder, path: Path) -> bytes | None:
    """A file of the newest snapshot that has it."""
    repository.need_index()
    for _, snapshot in sorted(repository.snapshots(), key=lambda one: one[1].at, reverse=True):
        node = finder.find(snapshot, os.fsencode(path))
        if node is not None and node.type == "file":
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / path.name
                file.write_bytes(b"".join(repository.load_blob(bytes.fromhex(blob)) for blob in node.content or ()))
                return content_of(file)
    return None


def _check_with_restic(machine: Machine, last: str) -> None:
    """restic finds the repository whole, and restores from the last backup what the agents have saved."""
    program = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if program is None:
        return
    place = machine.repository
    if machine.scene.s3:
        place = place.replace("s3://", f"s3:{machine.environ['AWS_ENDPOINT_URL']}/")

    def restic(*arguments: str | Path) -> str:
        done = subprocess.run(
            [program, "--repo", place, "--password-file", machine.password_file, "--no-cache", "--no-lock", *arguments],
            env={**os.environ, **machine.environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        machine.check(done.returncode == 0, f"restic {arguments}: {done.stdout} {done.stderr}")
        return done.stdout

    restic("check", "--read-data")
    with tempfile.TemporaryDirectory() as directory:
        agents = machine.root / "state/agents"
        restic("restore", last, "--target", directory, "--include", agents)
        for name, content in machine.model.saved.items():
            restored = Path(directory) / str(agents).lstrip("/") / machine.context(name).name
            machine.check(restored.is_file() and restored.read_bytes() == content, f"restic restores another {name}")
