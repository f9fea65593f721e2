"""What happens to directories, to the daemon, and to the machine: steps as those of agents."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.process.running import until
from tests.torture.machine import PATIENCE_S, Machine, is_full

DIRECTORIES = ("logs/system", "state/sessions", "prompts/cache", "vector_db/indexes", "vector_db/metadata")
"""Directories that are mistreated as wholes; what is in them goes with them."""
COMMANDS = ("sweep", "backup", "rotate", "clean", "verify", "prune", "status", "check", "snapshots")
_WITHOUT_REPOSITORY = ("rotate", "status")
_JUMPS_S = (0.0, 0.0, 5.0, -5.0, 90.0, -90.0, 1200.0, -1200.0, 5 * 3600.0, -5 * 3600.0, 2 * 86400.0, -2 * 86400.0)


def _directory(machine: Machine, chance: Random) -> Path:
    path = chance.choice(DIRECTORIES)
    if path == "prompts/cache":
        machine.model.cached.clear()
    return machine.root / path


def chmod(machine: Machine, chance: Random) -> None:
    """Another mode."""
    path = machine.root / chance.choice((*DIRECTORIES, "state", "logs"))
    mode = chance.choice((0o700, 0o777, 0o1755))
    with suppress(FileNotFoundError):
        if not path.is_symlink():  # chmod(1) would follow one that this workload has put there
            path.chmod(mode)


def remove_directory(machine: Machine, chance: Random) -> None:
    """It is gone, with all that was in it."""
    shutil.rmtree(_directory(machine, chance), ignore_errors=True)


def rename_directory(machine: Machine, chance: Random) -> None:
    """It is moved elsewhere, and from there out of sight."""
    path = _directory(machine, chance)
    elsewhere = machine.root / f".moved-{len(machine.done)}"
    try:
        path.rename(elsewhere)
    except FileNotFoundError:
        return
    except OSError as error:
        if not is_full(error):
            raise
        return
    if elsewhere.is_dir() and not elsewhere.is_symlink():
        shutil.rmtree(elsewhere, ignore_errors=True)
    else:
        elsewhere.unlink()


def link_directory(machine: Machine, chance: Random) -> None:
    """A link to what is none of the daemon's business takes its place."""
    _replaced(_directory(machine, chance), lambda path: path.symlink_to(machine.canary))


def put_file_in_place(machine: Machine, chance: Random) -> None:
    """A file takes its place."""
    _replaced(_directory(machine, chance), lambda path: path.write_text("in the way"))


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    try:
        make(path)
    except (FileExistsError, IsADirectoryError, FileNotFoundError):
        pass  # the daemon was quicker
    except OSError as error:
        if not is_full(error):
            raise


# The daemon


def kill_daemon(machine: Machine, _chance: Random) -> None:
    """It is killed, and started again."""
    machine.daemon.send(signal.SIGKILL)
    machine.daemon.process.wait(PATIENCE_S)
    machine.leave()
    machine.start()


def restart_daemon(machine: Machine, _chance: Random) -> None:
    """It is asked to end, and started again."""
    machine.daemon.send(signal.SIGTERM)
    try:
        code = machine.daemon.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise machine.violation("it doesn't end") from None
    machine.check(code == 0, f"it ended with {code}")
    machine.leave()
    machine.start()


def kill_child(machine: Machine, chance: Random) -> None:
    """One of its jobs is killed, if there is one."""
    for pid in chance.sample(machine.daemon.children(), 1) if machine.daemon.children() else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pause_daemon(machine: Machine, chance: Random) -> None:
    """It stands still for a moment."""
    machine.daemon.send(signal.SIGSTOP)
    time.sleep(chance.uniform(0.05, 0.5))
    machine.daemon.send(signal.SIGCONT)


def reload(machine: Machine, _chance: Random) -> None:
    """It reads its settings again."""
    machine.daemon.send(signal.SIGHUP)


def wait(_machine: Machine, chance: Random) -> None:
    """It is given some time."""
    time.sleep(chance.uniform(0.1, 1.0))


def command(machine: Machine, chance: Random) -> None:
    """Somebody runs the same job by hand; no traceback comes of it."""
    away = machine.wire is not None and machine.wire.cut is not None
    name = chance.choice(_WITHOUT_REPOSITORY if away else COMMANDS)
    done = machine.run(name)
    machine.check("Traceback" not in done.stderr, f"{name}: {done.stderr}")
    machine.check(done.returncode in (0, 1, 3, 10, 11), f"{name}: {done.returncode} {done.stderr}")


def corrupt(machine: Machine, chance: Random) -> None:
    """A bit of a snapshot or an index is flipped: `verify` tells, and when the file is mended, it doesn't."""
    files = sorted(
        path for kind in ("snapshots", "index") for path in (Path(machine.repository) / kind).glob("[0-9a-f]*")
    )
    if not files or (machine.disk is not None and machine.disk.full):
        return
    file = chance.choice(files)
    try:
        whole = file.read_bytes()
        place, bit = chance.randrange(len(whole)), chance.randrange(8)
        with file.open("r+b") as spoilt:
            spoilt.seek(place)
            spoilt.write(bytes([whole[place] ^ 1 << bit]))
    except FileNotFoundError:
        return  # it was just forgotten
    done = _verified(machine)
    if file.exists():  # else it was forgotten meanwhile, and is nobody's loss
        machine.check(done.returncode != 0, f"a flipped bit in {file} was not found: {done.stdout}")
        with suppress(FileNotFoundError), file.open("r+b") as mended:
            mended.write(whole)


def _verified(machine: Machine) -> "subprocess.CompletedProcess[str]":
    """What `verify` says when nobody else is verifying."""

    def look() -> "subprocess.CompletedProcess[str] | None":
        done = machine.run("verify")
        return done if done.returncode != 11 else None

    found = until(look, PATIENCE_S)
    assert found is not None
    return found


# The machine


def fill_disk(machine: Machine, _chance: Random) -> None:
    """Not a byte is free, until somebody makes room."""
    assert machine.disk is not None
    machine.disk.fill()


def free_disk(machine: Machine, _chance: Random) -> None:
    """There is room again."""
    assert machine.disk is not None
    machine.disk.free()


def unmount(machine: Machine, chance: Random) -> None:
    """The volume goes, and comes back; nothing is made in its place meanwhile."""
    assert machine.disk is not None
    machine.disk.unmount()
    try:
        time.sleep(chance.choice((0.0, 0.1, 1.5, 3.0)))
        found = os.listdir(machine.root)
        if chance.random() < 0.3:
            done = machine.run(chance.choice(COMMANDS))
            machine.check("Traceback" not in done.stderr, f"unmounted: {done.stderr}")
        found += os.listdir(machine.root)
    finally:
        machine.disk.mount()
    machine.check(not found, f"in the place of the volume: {found}")


def set_clock(machine: Machine, chance: Random) -> None:
    """The wall clock jumps, forwards or back, or is set right."""
    machine.clock.set(chance.choice(_JUMPS_S))


def cut_network(machine: Machine, chance: Random) -> None:
    """The way to the object store is cut, until somebody mends it."""
    assert machine.wire is not None
    machine.wire.sever(chance.choice(("refused", "silent", "broken")))


def mend_network(machine: Machine, _chance: Random) -> None:
    """It works again."""
    assert machine.wire is not None
    machine.wire.mend()
