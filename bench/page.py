"""Measures against the peers, keeps the figures, and makes docs/benchmarks.md of all that were ever kept.

    scripts/bench [--quick] [--list] [--page] [--without NAME…] [--results DIR] [NAME…]

NAME is a case (`clean`) or a piece of one (`clean/1M`); none means all. What a piece has measured is kept as JSON in
DIR (`~/.cache/symbiont-datad-bench`), so that cases can be measured one at a time, and when the machine is quiet; each
run ends with the page made anew of what is there, `--page` does only that. A piece that takes longer than its limit is
ended. `--quick` uses small sizes to see that everything works, and leaves figures and page as they are.

Exit code 1: a piece failed, missed a bar of its own, or lacks a program it can't do without.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import figures, machine  # noqa: E402
from bench.cases import CASES, Piece  # noqa: E402
from bench.kept import Kept, load, save  # noqa: E402
from bench.sections import page, picture  # noqa: E402

PAGE = ROOT / "docs/benchmarks.md"
PICTURE = ROOT / "docs/benchmarks.svg"
KEPT = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "symbiont-datad-bench"


def main() -> int:
    """Run what was asked for, make the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="cases or pieces that are left out")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is kept, the page stays")
    parser.add_argument("--list", action="store_true", help="all pieces, how long each took last, and when that was")
    parser.add_argument("--page", action="store_true", help="measure nothing, make the page")
    parser.add_argument("--results", type=Path, default=KEPT, metavar="DIR", help=f"where figures are kept ({KEPT})")
    given = parser.parse_args()
    names = [f"{case}/{piece.name}" for case in CASES for piece in CASES[case].pieces]
    known = {*names, *CASES}
    if unknown := {*given.names, *given.without} - known:
        parser.error(f"no such case or piece: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if given.list:
        show(given.results)
        return 0
    failed: list[str] = []
    # Who was started by a shell in the background ignores it, and so would the scripts, which are ended by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) if given.quick else given.results
        results.mkdir(parents=True, exist_ok=True)
        if not given.page:
            chosen = [name for name in names if is_meant(name, given.names or names)]
            failed = measure([name for name in chosen if not is_meant(name, given.without)], results, quick=given.quick)
        kept = load(results)
        text, svg = page(kept), picture(kept)
    if given.quick:
        print(f"\n== a page of {len(text):,} characters, a picture of {len(svg):,}")
    else:
        PAGE.write_text(text, encoding="utf-8")
        PICTURE.write_text(svg, encoding="utf-8")
    if failed:
        print(f"== not as they should be: {', '.join(failed)}")
    return int(bool(failed))


def is_meant(name: str, names: list[str]) -> bool:
    """Whether a piece is among the names, by itself or with its case."""
    return name in names or name.partition("/")[0] in names


def measure(names: list[str], results: Path, *, quick: bool) -> list[str]:
    """Run pieces one after the other; those that failed."""
    failed = []
    for name in names:
        case, _, piece = name.partition("/")
        one = next(one for one in CASES[case].pieces if one.name == piece)
        if quick and not one.quick and one.full:
            continue
        if missing := CASES[case].missing():
            print(f"== {name}: not run, {' and '.join(missing)} missing", flush=True)
            failed.append(name)
            continue
        found = run(case, one, quick=quick)
        print(f"== {name}: {found.took_s / 60:.1f} minutes, exit code {found.code}\n", flush=True)
        if not found.figures or (found.code != 0 and not quick):  # small sizes miss bars
            failed.append(name)
        if found.figures:
            save(results, found)
    return failed


def run(case: str, piece: Piece, *, quick: bool) -> Kept:
    """Run a piece, which prints as it goes, and end it at its limit."""
    words = [f"bench/{case}.py", *(piece.quick if quick else piece.full)]
    print(f"== {' '.join(words)}", flush=True)
    load, at, begun = os.getloadavg()[0], time.time(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "figures.json")
        environ = {**os.environ, figures.FILE: str(place)}
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environ, start_new_session=True)
        code = followed(process, piece.limit_min * 60)
        found = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    took = time.monotonic() - begun
    programs = (*CASES[case].needs, *CASES[case].peers)
    return Kept(
        case, piece.name, " ".join(words), at, took, load, code, machine.described(), machine.versions(programs), found,
    )  # fmt: skip


def followed(process: "subprocess.Popen[bytes]", limit_s: float) -> int:
    """The exit code of a process. At the limit it is asked to end, so that it can clean up, and each minute again."""
    begun = time.monotonic()
    try:
        while True:
            left = begun + limit_s - time.monotonic()
            try:
                return process.wait(left if left > 0 else 60.0)
            except subprocess.TimeoutExpired:
                print(f"== more than {limit_s / 60:.0f} minutes: ended", flush=True)
                os.killpg(process.pid, signal.SIGINT)
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def show(results: Path) -> None:
    """The pieces, and what is known of each."""
    kept = {(one.case, one.piece): one for pieces in load(results).values() for one in pieces}
    for case, about in CASES.items():
        for piece in about.pieces:
            one = kept.get((case, piece.name))
            known = f"{one.took_s / 60:6.1f} min, {time.strftime('%Y-%m-%d %H:%M', time.gmtime(one.at))}" if one else ""
            print(f"{case + '/' + piece.name:16}at most {piece.limit_min:4.0f} min {known:28}{about.title}")


if __name__ == "__main__":
    sys.exit(main())
