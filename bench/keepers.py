"""What people use, or could write in an hour, to keep one directory: the peers of `repair.py`.

Each watches the parent and puts the directory back, with mode 0755. The loop in C is the least that can do that.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

C_LOOP, WATCHDOG, SHELL, INCRON = "C inotify loop", "watchdog, bare", "inotifywait loop", "incron"
COMMANDS = {
    C_LOOP: "bench/inotify_loop.c",
    WATCHDOG: "an Observer on the parent, its default mask, a handler that calls os.mkdir or os.chmod",
    SHELL: "inotifywait -m -q -e delete,moved_from,attrib DIR | while read …; do mkdir or chmod; done",
    INCRON: "DIR IN_DELETE,IN_MOVED_FROM,IN_ATTRIB keep.sh $# $%",
}
_SHELL = """
inotifywait -m -q -e delete,moved_from,attrib "$1" | while read -r _ events name; do
    [ "$name" = "$2" ] || continue
    case $events in
        *ATTRIB*) [ "$(stat -c %a "$1/$2")" = 755 ] || chmod 755 "$1/$2" ;;
        *) mkdir -p "$1/$2" ;;
    esac
done
"""
_WATCHDOG = """
import os, sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
parent, name = os.path.split(sys.argv[1])
class Keep(FileSystemEventHandler):
    def on_any_event(self, event):
        try:
            if os.stat(sys.argv[1]).st_mode & 0o7777 != 0o755:
                os.chmod(sys.argv[1], 0o755)
        except FileNotFoundError:
            try:
                os.mkdir(sys.argv[1], 0o755)
            except FileExistsError:
                pass
os.umask(0o022)
observer = Observer()
observer.schedule(Keep(), parent)
observer.start()
while True:
    time.sleep(3600)
"""
_KEEP = """#!/bin/sh
[ "$1" = "{name}" ] || exit 0
case $2 in
    *ATTRIB*) [ "$(stat -c %a "{path}")" = 755 ] || chmod 755 "{path}" ;;
    *) mkdir -p "{path}" ;;
esac
"""


@contextmanager
def process(*command: str, group: bool = False) -> Iterator["subprocess.Popen[bytes]"]:
    """A process for as long as the block runs; with `group`, what it started ends with it."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=group)
    try:
        yield started
    finally:
        if group:
            os.killpg(started.pid, 15)
        else:
            started.terminate()
        started.wait()


def built(base: Path) -> Path:
    """The loop in C, compiled."""
    loop = base / "inotify_loop"
    subprocess.run(["gcc", "-O2", "-o", loop, Path(__file__).parent / "inotify_loop.c"], check=True)
    return loop


@contextmanager
def keepers(base: Path) -> Iterator[tuple[dict[str, Path], list[str]]]:
    """All of them at work, each with a directory of its own below `base`; and the names of those that are not here."""
    starts: dict[str, Callable[[Path], Iterator[None]]] = {
        C_LOOP: _c,
        WATCHDOG: _watchdog,
        SHELL: _shell,
        INCRON: _incron,
    }
    programs = {SHELL: "inotifywait", INCRON: "incrond"}
    missing = [programs[name] for name in programs if shutil.which(programs[name]) is None]
    found: dict[str, Path] = {}
    with ExitStack() as stack:
        for name, start in starts.items():
            if programs.get(name) not in missing:
                path = base / name.replace(", ", "-").replace(" ", "-") / "dir"
                path.mkdir(parents=True)
                stack.enter_context(contextmanager(start)(path))
                if _is_kept(path):
                    found[name] = path
                else:
                    missing.append(f"{name} (it does not start here)")
        yield found, missing


def _is_kept(path: Path) -> bool:
    """Whether somebody puts it back; a process may need some seconds until it looks."""
    for _ in range(20):
        path.rmdir()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if path.is_dir():
                return True
            time.sleep(0.01)
        path.mkdir(exist_ok=True)
    return False


def _c(path: Path) -> Iterator[None]:
    with process(str(built(path.parents[1])), str(path)):
        yield


def _watchdog(path: Path) -> Iterator[None]:
    with process(sys.executable, "-c", _WATCHDOG, str(path)):
        yield


def _shell(path: Path) -> Iterator[None]:
    with process("bash", "-c", _SHELL, "bash", str(path.parent), path.name, group=True):
        yield


def _incron(path: Path) -> Iterator[None]:
    own = path.parent.with_name("incron-own")
    for name in ("system", "users"):
        (own / name).mkdir(parents=True)
    keep = own / "keep.sh"
    keep.write_text(_KEEP.format(name=path.name, path=path))
    keep.chmod(0o755)
    (own / "system/table").write_text(f"{path.parent} IN_DELETE,IN_MOVED_FROM,IN_ATTRIB {keep} $# $%\n")
    config = own / "incron.conf"
    config.write_text(
        f"system_table_dir = {own}/system\nuser_table_dir = {own}/users\n"
        f"lockfile_dir = {own}\nlockfile_name = incrond-bench\n"
    )
    with process("incrond", "-n", "-f", str(config), group=True):
        yield
