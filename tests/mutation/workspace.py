"""A copy of the project in which mutmut finds its way: the package lies beside the tests, and nothing else is there."""

import ast
import os
import shutil
from pathlib import Path

from tests.mutation.modules import Module

NAME = "symbiont_datad"

_OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tests.mutation.order", "--hypothesis-profile=mutation")


def prepare(place: Path, project: Path, module: Module) -> None:
    """Bring the copy at `place` up to date; results of an earlier run stay, if the sources are the same."""
    place.mkdir(parents=True, exist_ok=True)
    for copy, original in ((NAME, project / "daemon" / NAME), ("tests", project / "tests")):
        shutil.rmtree(place / copy, ignore_errors=True)
        shutil.copytree(original, place / copy, ignore=shutil.ignore_patterns("__pycache__"))
        # mutmut copies what is new, and leaves what is gone.
        shutil.rmtree(place / "mutants" / "tests", ignore_errors=True)
    for path in sources(place, module):
        file = place / path
        times = file.stat()
        file.write_text(bared(file.read_text()))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    tests = [f"tests/{path}" for path in module.tests]
    settings = {
        "source_paths": [NAME],
        "only_mutate": sources(place, module),
        "pytest_add_cli_args": [*_OPTIONS, *(f"--deselect=tests/{path}" for path in module.without)],
        "pytest_add_cli_args_test_selection": tests,
        # So many times as long as its tests, and so many seconds, a mutant may take; what else runs makes it slower.
        "timeout_multiplier": 5.0,
        "timeout_constant": 3.0,
    }
    text = (project / "pyproject.toml").read_text() + "\n[tool.mutmut]\n"
    text += "".join(f"{key} = {value!r}\n" for key, value in settings.items())
    (place / "pyproject.toml").write_text(text)


def sources(place: Path, module: Module) -> list[str]:
    """The files that are mutated, relative to the copy."""
    found = [file.relative_to(place) for pattern in module.sources for file in (place / NAME).glob(pattern)]
    return sorted(map(str, found))


def bared(source: str) -> str:
    """The same program with what mutmut would leave alone laid open to it: functions with a decorator.

    A cache goes: it would answer for a mutant what it was told by the original, too. A property is made one after its
    function.
    """
    lines = source.splitlines()
    after: dict[int, str] = {}
    gone: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or len(node.decorator_list) != 1:
            continue
        (decorator,) = node.decorator_list
        if isinstance(decorator, ast.Name) and decorator.id == "property":
            after[node.end_lineno or 0] = f"{' ' * node.col_offset}{node.name} = property({node.name})"
        elif isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "lru_cache":
            after[node.end_lineno or 0] = f"{' ' * node.col_offset}{node.name}.cache_clear = lambda: None"
        else:
            continue
        gone.update(range(decorator.lineno, (decorator.end_lineno or decorator.lineno) + 1))
    text = []
    for number, line in enumerate(lines, 1):
        text += [] if number in gone else [line]
        text += [after[number]] if number in after else []
    return "\n".join(text) + "\n"


def function_of(mutant: str) -> str:
    """`Class.method` or `function`, of a mutant's name: `symbiont_datad.timetable.xǁTimetableǁdue__mutmut_3`."""
    mangled = mutant.partition("__mutmut_")[0].rpartition(".")[2]
    return mangled.removeprefix("x_") if mangled.startswith("x_") else mangled.removeprefix("xǁ").replace("ǁ", ".")
