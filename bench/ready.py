"""From exec to READY=1 by the number of files in the tree: it should be well under a second and not grow.

    .venv/bin/python bench/ready.py [--starts 5] [--sizes 0 10000 100000]

The tree has 0, 10,000 and 100,000 files in state/agents and in prompts/cache each, and 0, 1,000 and 10,000 directories
in prompts/history. Each start is a new process with its own notify socket; the sizes take turns. "Python" is how long
`python -c pass` takes, "imports" the same with what the daemon imports: the floor under every start.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from tests.process.running import running

_IMPORTS = "import symbiont_datad.supervisor, symbiont_datad.settings_sources, symbiont_datad.cli.app"


def fill(root: Path, files: int) -> None:
    """Files directly in two directories, and a tenth as many directories in a third."""
    for directory in ("state/agents", "prompts/cache"):
        (root / directory).mkdir(parents=True)
        fd = os.open(root / directory, os.O_RDONLY)
        for number in range(files):
            os.close(os.open(f"{number:032x}.json", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
        os.close(fd)
    for number in range(files // 10):
        (root / f"prompts/history/day{number}").mkdir(parents=True)


def python(code: str) -> float:
    """Seconds that an interpreter takes for some code, from exec to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Make the trees, take turns in starting, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 10_000, 100_000])
    given = parser.parse_args()
    starts, sizes = given.starts, {f"{size:,} files": size for size in given.sizes}
    base = Path(tempfile.mkdtemp(prefix="bench-ready-", dir="/var/tmp"))
    try:
        for name, files in sizes.items():
            fill(base / name / "data", files)
        times: dict[str, list[float]] = {name: [] for name in (*sizes, "Python", "imports")}
        for _ in range(starts):
            for name in sizes:
                with running(base / name) as daemon:
                    times[name].append(daemon.ready_after_s)
            times["Python"].append(python("pass"))
            times["imports"].append(python(_IMPORTS))
        base_s = statistics.median(times[next(iter(sizes))])
        print(f"{'':16}{'median s':>10}{'min s':>8}{'max s':>8}{'ratio':>8}")
        for name, found in times.items():
            middle = statistics.median(found)
            print(f"{name:16}{middle:10.3f}{min(found):8.3f}{max(found):8.3f}{middle / base_s:8.2f}")
        floors = {"python -c pass": times["Python"], "python, and the daemon's imports": times["imports"]}
        keep(
            Figures(
                [
                    Line("from exec to ready", "s", {"daemon": times[name], **floors}, ("daemon",), tuple(floors), size)
                    if size
                    else Line(
                        "from exec to ready, no files",
                        "s",
                        {"daemon": times[name], **floors},
                        ("daemon",),
                        tuple(floors),
                    )
                    for name, size in sizes.items()
                ]
            )
        )
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
