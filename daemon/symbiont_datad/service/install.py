"""Carrying out what `target` says: files compared, written and removed, commands run."""

import glob
import os
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.errors import DatadError
from symbiont_datad.report import printable
from symbiont_datad.service.stamp import Standing, stamped, standing
from symbiont_datad.service.target import File, Kind, Step, Target

_PATIENCE_S = 180.0
"""For one command; `systemctl start` waits for the tree, and its own patience is two minutes."""

RUNTIME = "/run/user"


@dataclass(frozen=True, slots=True)
class Change:
    """One file: how what is on disk stands to what is wanted, and whether it is to go. `found` is its text now."""

    path: str
    standing: Standing
    wanted: str
    found: str | None
    goes: bool = False


def changes(target: Target) -> list[Change]:
    """What installing would do to files: those that are wanted, and those that other settings asked for."""
    found = [_change(file.path, file.content) for file in target.files]
    old = [_change(path, stamped(""), goes=True) for path in target.obsolete]
    return [*found, *(one for one in old if one.standing is not Standing.ABSENT)]


def removals(target: Target) -> list[Change]:
    """What removing would do: every file of the service that is there and that no other service of ours needs."""
    others = (
        [path for path in glob.glob(target.others) if os.path.basename(path) != target.name] if target.others else []
    )
    files = [file for file in target.files if not (file.shared and others)]
    files += [File(path, stamped("")) for path in target.obsolete]
    found = [_change(file.path, file.content, goes=True) for file in files]
    return [one for one in found if one.standing is not Standing.ABSENT]


def _change(path: str, wanted: str, goes: bool = False) -> Change:
    try:
        found: str | None = Path(path).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        found = None
    return Change(path, standing(wanted, found), wanted, found, goes)


def carry_out(change: Change, force: Collection[str] = ()) -> bool:
    """Write or remove one file; whether that was done. A changed one only when `force` names it, and then it is kept
    beside as `….old`. Raises DatadError."""
    if change.standing is Standing.SAME and not change.goes:
        return False
    if change.standing is Standing.CHANGED and change.path not in force:
        return False
    try:
        if change.standing is Standing.CHANGED:
            os.replace(change.path, f"{change.path}.old")
        if not change.goes:
            _write(Path(change.path), change.wanted)
        elif change.standing is not Standing.CHANGED:
            os.unlink(change.path)
        directory = os.path.dirname(change.path)
        if change.goes and directory.endswith(".service.d"):
            with suppress(OSError):  # something else is in it
                os.rmdir(directory)
    except OSError as error:
        raise DatadError(f"{printable(change.path)}: can't be changed: {error.strerror or error}") from None
    return True


def _write(file: Path, text: str) -> None:
    """Whole or not at all, mode 0644, whatever the umask."""
    before = os.umask(0o022)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        with open(temporary, "x", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    finally:
        os.umask(before)


def run(steps: tuple[Step, ...], tell: Callable[[Step], None] = lambda _: None) -> None:
    """Run commands in their order, each told of before. Raises DatadError when one fails that must not."""
    for step in steps:
        tell(step)
        try:
            result = subprocess.run(
                step.words,
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                env=_environment(),
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise DatadError(f"{step.words[0]}: this machine has no such command") from None
        except subprocess.TimeoutExpired:
            raise DatadError(f"{' '.join(step.words)}: no end after {_PATIENCE_S:.0f} s") from None
        if result.returncode and not step.may_fail:
            said = "\n".join(filter(None, (result.stderr.strip(), result.stdout.strip())))
            raise DatadError(f"{' '.join(step.words)} ended with {result.returncode}\n{said}".rstrip())


def _environment() -> dict[str, str]:
    """Ours, with what `systemctl --user` needs where a login did not set it (`su`, `runuser`)."""
    runtime = f"{RUNTIME}/{os.geteuid()}"
    if "XDG_RUNTIME_DIR" in os.environ or not os.path.isdir(runtime):
        return {**os.environ}
    return {**os.environ, "XDG_RUNTIME_DIR": runtime}


@dataclass(frozen=True, slots=True)
class State:
    """How the service manager sees the service: each in its own words (`active`, `failed`, `enabled`, `not found`)."""

    active: str
    enabled: str
    pid: int | None = None
    says: str = ""


def state(target: Target) -> State:
    """Ask the service manager. Raises DatadError when it can't be asked."""
    if target.kind in (Kind.AGENT, Kind.DAEMON):
        return _launchd_state(target)
    own = ["--user"] if target.kind is Kind.USER else []
    names = "LoadState,ActiveState,SubState,UnitFileState,MainPID,StatusText"
    values = dict(
        line.split("=", 1) for line in _asked("systemctl", *own, "show", "-p", names, target.name) if "=" in line
    )
    if not values:
        raise DatadError(
            "systemd can't be asked; is there a session of this user? (`loginctl enable-linger` makes one)"
        )
    return State(
        active=values["ActiveState"],
        enabled=values["UnitFileState"] or ("not found" if values["LoadState"] == "not-found" else "disabled"),
        pid=int(values.get("MainPID", "0")) or None,
        says=values.get("StatusText", ""),
    )


def _launchd_state(target: Target) -> State:
    """From `launchctl print`, whose form is not promised: lines `state = running`, `pid = 4711`."""
    service = target.stop[0].words[-1]
    lines = [line.strip().partition(" = ") for line in _asked("launchctl", "print", service)]
    values = {name: value for name, found, value in reversed(lines) if found}
    if not values:
        return State("inactive", "not found")
    pid = values.get("pid", "")
    return State("active" if values.get("state") == "running" else values.get("state", "unknown"), "enabled",
                 int(pid) if pid.isdigit() else None)  # fmt: skip


def _asked(*words: str) -> Iterator[str]:
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=30, env=_environment())
    except FileNotFoundError:
        raise DatadError(f"{words[0]}: this machine has no such command") from None
    yield from result.stdout.splitlines() if result.returncode == 0 else ()


def lingers(name: str) -> bool:
    """Whether a user's own services run while the user is logged out (loginctl(1), `enable-linger`)."""
    return Path("/var/lib/systemd/linger", name).exists()
