"""The same targets with inputs that atheris makes, guided by the coverage of branches. One process for each target,
because the fuzzer's loop never returns.
"""

# ruff: noqa: T201  # a script prints

import importlib
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.engine import LARGEST, SLOW_S, Target
from tests.fuzz.targets import TARGETS


def guided(chosen: list[Target], seconds: float, found: Path) -> int:
    """Let atheris feed each target for so many seconds; what broke one is left in `found`. 1 when something was."""
    found.mkdir(exist_ok=True)
    spawning, broken = multiprocessing.get_context("spawn"), 0
    for target in chosen:
        print(f"{target.name}: {seconds:.0f} s", flush=True)
        process = spawning.Process(target=_loop, args=(target.name, seconds, str(found)))
        process.start()
        process.join()
        broken += process.exitcode != 0
    return int(broken > 0)


def _loop(name: str, seconds: float, found: str) -> None:
    """Never returns."""
    atheris: Any = importlib.import_module("atheris")
    target = next(one for one in TARGETS if one.name == name)
    modules = [module for name, module in sys.modules.items() if name.startswith("symbiont_datad.")]
    for module in modules:
        for value in list(vars(module).values()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                atheris.instrument_func(value)

    def feed(data: bytes) -> None:
        try:
            target.feed(data)
        except target.allowed:
            pass

    with tempfile.TemporaryDirectory() as folder:
        corpus, words = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds:.0f}", f"-max_len={LARGEST}", f"-timeout={SLOW_S:.0f}", "-rss_limit_mb=2048",
            f"-artifact_prefix={os.path.abspath(found)}/{name}-", "-verbosity=0",
        ]  # fmt: skip
        if short := [word for word in target.words if 0 < len(word) < 60]:
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in short))
            options.append(f"-dict={words}")  # an empty one is an error
        atheris.Setup([name, *options, str(corpus)], feed)
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
