"""Making a tree, and finding it as it should be, against systemd-tmpfiles with a line for each of the same directories.

    .venv/bin/python bench/create.py [--rounds 20]

Each round makes the tree anew with each tool, and lets each look at it once more, in turns. `init` is a whole command,
most of which is the start of an interpreter; "reconcile" is what the daemon does at its start, and on each scan, in a
process that is there already. Raw medians of the wall clock, in milliseconds.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT)]

from bench.figures import Figures, Line, keep  # noqa: E402
from symbiont_datad.guard.reconcile import reconcile  # noqa: E402
from symbiont_datad.layout import Layout, layout_of  # noqa: E402
from symbiont_datad.settings import Settings  # noqa: E402
from tests.process.running import COMMAND  # noqa: E402


def layout_at(root: Path) -> Layout:
    """The built-in layout at a root."""
    return layout_of(Settings(root_data_dir=root))


def tmpfiles(base: Path, root: Path) -> Callable[[], None]:
    """systemd-tmpfiles with a `d` line for each directory."""
    config = base / "tree.conf"
    rows = layout_at(root).directories
    config.write_text("".join(f"d {root}/{row.path} {row.mode:04o} - - -\n" for row in rows))
    return lambda: _run(["systemd-tmpfiles", "--create", str(config)])


def command(base: Path, root: Path) -> Callable[[], None]:
    """`init`, with a settings file that is there already."""
    config = base / "datad.toml"
    config.write_text("")
    return lambda: _run([*COMMAND, "--config", str(config), "--root", str(root), "init"])


def in_process(_: Path, root: Path) -> Callable[[], None]:
    """What `init` and the daemon call."""
    layout = layout_at(root)
    return lambda: _whole(layout)


def _whole(layout: Layout) -> None:
    found = reconcile(layout, now=time.time())
    assert not found.failures, found.failures


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def interpreter(_: Path, root: Path) -> Callable[[], None]:
    """What any command in Python takes, and the sixteen directories."""
    code = f"import os\nfor path in {[row.path for row in layout_at(root).directories]!r}: "
    code += f"os.makedirs({str(root)!r} + '/' + path, exist_ok=True)"
    return lambda: _run([sys.executable, "-I", "-S", "-c", code])


TMPFILES, INIT, RECONCILE, FLOOR = "systemd-tmpfiles", "init", "reconcile, in a process", "python -S, and os.makedirs"
TOOLS = {TMPFILES: tmpfiles, INIT: command, RECONCILE: in_process, FLOOR: interpreter}
COMMANDS = {TMPFILES: "systemd-tmpfiles --create CONF", INIT: "symbiont-datad --config FILE --root DIR init"}


def main() -> None:
    """Make trees in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in TOOLS}
    for _ in range(rounds):
        for name, tool in TOOLS.items():
            base = Path(tempfile.mkdtemp(prefix="bench-create-", dir="/var/tmp"))
            try:
                work = tool(base, base / "above/data")
                (base / "above").mkdir()
                for taken in times[name]:
                    begun = time.perf_counter()
                    work()
                    taken.append(time.perf_counter() - begun)
            finally:
                shutil.rmtree(base)
    print(f"{'ms, median of ' + str(rounds):28}{'made':>8}{'ratio':>8}{'as it was':>12}{'ratio':>8}")
    bases = [median(taken) for taken in times[next(iter(TOOLS))]]
    for name, found in times.items():
        made, looked = (median(taken) for taken in found)
        print(f"{name:28}{made * 1e3:8.1f}{made / bases[0]:8.2f}{looked * 1e3:12.1f}{looked / bases[1]:8.2f}")
    lines = [
        Line(f"{what} {how}", "ms", {who: ms(times[who][number]) for who in who_did}, (ours,), (FLOOR,))
        for number, what in enumerate(("a tree made", "a tree looked at"))
        for ours, how, who_did in (
            (INIT, "by a command", (INIT, TMPFILES, FLOOR)),
            (RECONCILE, "by the daemon", (RECONCILE, TMPFILES)),
        )
    ]
    keep(Figures(lines, COMMANDS))


def ms(seconds: Iterable[float]) -> list[float]:
    """The same in milliseconds."""
    return [one * 1e3 for one in seconds]


if __name__ == "__main__":
    main()
