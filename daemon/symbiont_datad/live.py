"""What the running daemon leaves for others to read: its live state, in `status.json`.

Light on purpose: probes look every few seconds, each in a process of its own.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from symbiont_datad.fsops.lock import holder
from symbiont_datad.report import Legacy

_STATE = "status.json"
_LOOK_AGAIN_S = (0.0, 0.05, 0.2)
_NOT_OURS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What comes of a file that is just being written over, or is none of ours."""


@dataclass(frozen=True, slots=True)
class LiveState:
    """What only the daemon itself knows. Times in seconds since the epoch.

    `running` is false in what a daemon leaves when it ends. `ready`: the tree is kept now; `started`: it was since the
    start. `alive`: the parts move. `beat` is when this was written, on the clock that nobody sets
    (`time.monotonic`, the same for all processes until the next boot), and every `every_s` seconds it is written again.
    `version` is that of the program that runs, `settings_at` when it read its settings last.
    """

    pid: int
    started_at: float
    written_at: float
    running: bool
    ready: bool
    warnings: tuple[str, ...] = ()
    next_runs: Mapping[str, float] = field(default_factory=dict)
    active_jobs: tuple[str, ...] = ()
    started: bool = False
    alive: bool = True
    beat: float = 0.0
    every_s: float = 0.0
    version: str = ""
    backing_off: tuple[str, ...] = ()
    """Paths that are repaired less often, because something keeps undoing it."""
    settings_at: float = 0.0
    legacy: tuple[Legacy, ...] = ()


_NAMES = frozenset(one.name for one in fields(LiveState))
"""What a newer daemon adds is left out."""


def keeper(daemon_dir: Path) -> int | None:
    """The pid of the daemon that has its own files there and runs; None when none does, 0 when it can't be told."""
    return holder(daemon_dir / "locks" / "keeper.lock")


def write_state(daemon_dir: Path, state: LiveState, runtime: Path | None = None) -> None:
    """Leave the live state; whoever reads gets the old or the new one, whole. It need not survive a crash: no fsync.

    With `runtime`, a directory in memory (systemd.exec(5), `RuntimeDirectory=`), it goes there and the disk may sleep;
    a link in the daemon's own directory leads to it. Raises OSError.
    """
    content = json.dumps({"schema": 1, **asdict(state)}).encode()
    file = daemon_dir / _STATE
    if runtime is None:
        _replace(file, content)
        return
    _replace(runtime / _STATE, content)
    if not file.is_symlink() or file.readlink() != runtime / _STATE:
        temporary = daemon_dir / f".{_STATE}.{os.getpid()}"
        temporary.symlink_to(runtime / _STATE)
        temporary.replace(file)


def _replace(file: Path, content: bytes) -> None:
    """On a disk without room for another file the old one is written over, so that it does not seem as if the daemon
    had stopped; a reader may then see a piece of each, and looks again."""
    temporary = file.with_name(f".{_STATE}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        with open(file, "r+b") as old:
            old.write(content.ljust(os.fstat(old.fileno()).st_size))


def read_state(daemon_dir: Path) -> LiveState | None:
    """The live state that a daemon left, or None."""
    for pause_s in _LOOK_AGAIN_S:
        time.sleep(pause_s)
        try:
            found = json.loads((daemon_dir / _STATE).read_text(encoding="utf-8"))
            found.pop("schema")
            found["warnings"], found["active_jobs"] = tuple(found["warnings"]), tuple(found["active_jobs"])
            found["backing_off"] = tuple(found.get("backing_off", ()))
            found["legacy"] = tuple(Legacy(**one) for one in found.get("legacy", ()))
            return LiveState(**{name: value for name, value in found.items() if name in _NAMES})
        except OSError:
            return None
        except _NOT_OURS:
            continue
    return None
