"""The house stands: imports point down, only the cellar asks for the platform, and light processes stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import symbiont_datad

NAME = "symbiont_datad"
PACKAGE = Path(symbiont_datad.__file__).parent

FLOORS = (
    {"cli"},
    {"supervisor"},
    {"schedule", "observation", "doctor"},
    {"jobs", "guard", "service"},
    {"migrate", "layout", "status", "context_store", "timetable"},
    {"settings", "retention", "ledger", "live", "events"},
    {"restic", "formats", "fsops"},
    {"report", "errors", "quantities"},
)
"""The rooms of the house, from the roof down. A room is a module or a package right below `symbiont_datad`."""

ALONE = {"restic"}
"""Rooms that import nothing of ours: they could be a library of their own."""

ASKS_FOR_PLATFORM = ("fsops/", "guard/watch.py", "service/")
"""What may differ between Linux and macOS (docs/design.md, "The house")."""

FACE = {"__version__"}
"""What a module may take from the package itself. Its other names are for users and stand for a room each."""


def room_of(module: str) -> str:
    """The room of a module, given with dots and without the package's name: `guard.watch` is in `guard`."""
    first = module.split(".")[0]
    if first == "__main__":
        return "cli"
    return next((room for room in ("settings", "ledger", "status") if first.startswith(f"{room}_")), first)


def floor_of(room: str) -> int | None:
    """The floor of a room, 0 at the top; None for a room that the house does not have."""
    return next((floor for floor, rooms in enumerate(FLOORS) if room in rooms), None)


def module_of(path: Path, package: Path = PACKAGE) -> str:
    """The dotted name of a source file below the package; empty for the package's own `__init__`."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows(source: str, module: str, known: set[str], is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Every reference of one source to a module of ours, as its line and the module (without the package's name).

    Counted are imports anywhere, in functions and under TYPE_CHECKING too, and texts that are the name of a known
    module: tables and `python -m` name modules like that. `FACE` is not counted.
    """
    here = [NAME, *module.split(".")] if module else [NAME]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                targets = [name.name for name in names]
            case ast.ImportFrom(module=base, names=names, level=level):
                above = here[: len(here) - level + is_package] if level else []
                start = ".".join([*above, *([base] if base else [])])
                inner = start.removeprefix(NAME).removeprefix(".")
                targets = [
                    f"{start}.{name.name}" if not inner or f"{inner}.{name.name}" in known else start
                    for name in names
                    if not (start == NAME and name.name in FACE)
                ]
            case ast.Constant(value=str(text)) if text.removeprefix(f"{NAME}.") in known:
                targets = [text]
            case _:
                continue
        for target in targets:
            if target.startswith(f"{NAME}."):
                yield node.lineno, target.removeprefix(f"{NAME}.")


def faults(sources: dict[str, str]) -> list[str]:
    """What is wrong with the arrows of a package, given as source by path (`guard/watch.py`), as `path:line: why`."""
    known = {module_of(Path(path), Path()) for path in sources}
    found = []
    for path, source in sources.items():
        module = module_of(Path(path), Path())
        if not module:
            continue  # the package's face shows names of every floor, and loads them late
        room = room_of(module)
        floor = floor_of(room)
        if floor is None:
            found.append(f"{path}:1: {room} has no floor")
            continue
        for line, target in arrows(source, module, known, path.endswith("__init__.py")):
            other = room_of(target)
            below = floor_of(other)
            if other == room:
                continue
            if below is None:
                found.append(f"{path}:{line}: {other} has no floor")
            elif room in ALONE:
                found.append(f"{path}:{line}: {room} imports nothing of ours, but {target}")
            elif below <= floor:
                found.append(f"{path}:{line}: {room} -> {target} points {'up' if below < floor else 'sideways'}")
    return found


def platform_questions(source: str) -> Iterator[int]:
    """The lines that ask for the platform: `sys.platform`, `os.uname`, the module `platform`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="sys"), attr="platform"):
                yield node.lineno
            case ast.Attribute(value=ast.Name(id="os"), attr="uname"):
                yield node.lineno
            case ast.Import(names=names) if any(name.name == "platform" for name in names):
                yield node.lineno
            case ast.ImportFrom(module="platform"):
                yield node.lineno
            case ast.ImportFrom(module="sys" | "os", names=names) if {n.name for n in names} & {"platform", "uname"}:
                yield node.lineno


def package_sources() -> dict[str, str]:
    """The package as `faults` takes it."""
    return {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_point_down() -> None:
    """A module imports from floors below its own, or from its own room."""
    assert [] == faults(package_sources())


def test_platform_is_asked_for_in_the_cellar_only() -> None:
    """Nothing outside fsops/, guard/watch.py and service/ knows on which system it runs."""
    assert [] == [
        f"{path}:{line}"
        for path, source in package_sources().items()
        if not path.startswith(ASKS_FOR_PLATFORM)
        for line in platform_questions(source)
    ]


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        pytest.param("guard/drift.py", "from symbiont_datad.supervisor import run", "1: guard -> supervisor", id="up"),
        pytest.param(
            "guard/drift.py", "\nimport symbiont_datad.jobs", "2: guard -> jobs points sideways", id="sibling"
        ),
        pytest.param("guard/drift.py", "from symbiont_datad import jobs", "1: guard -> jobs", id="from the package"),
        pytest.param("guard/drift.py", "from .. import jobs", "1: guard -> jobs", id="relative"),
        pytest.param("guard/__init__.py", "from ..jobs import context", "1: guard -> jobs.context", id="relative up"),
        pytest.param(
            "layout.py", "def f():\n    from symbiont_datad import cli", "2: layout -> cli", id="in a function"
        ),
        pytest.param(
            "layout.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from symbiont_datad.jobs.context import C",
            "3: layout -> jobs.context points up",
            id="for types only",
        ),
        pytest.param("layout.py", "TABLE = ('symbiont_datad.jobs',)", "1: layout -> jobs points up", id="as text"),
        pytest.param("restic/pack.py", "import symbiont_datad.errors", "1: restic imports nothing", id="restic"),
        pytest.param("settings.py", "import symbiont_datad.attic", "1: attic has no floor", id="unknown target"),
        pytest.param("attic.py", "", "1: attic has no floor", id="unknown module"),
        pytest.param("jobs/sweep.py", "from symbiont_datad import Thing", "1: Thing has no floor", id="a public name"),
    ],
)
def test_wrong_arrows_are_found(path: str, source: str, fault: str) -> None:
    """Each kind of arrow that points up or sideways is named with its file and line."""
    house = {"cli/__init__.py": "", "jobs/__init__.py": "", "jobs/context.py": "", path: source}
    assert [f"{path}:{fault}"] == [found[: len(f"{path}:{fault}")] for found in faults(house)]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cli/__init__.py", "from symbiont_datad.supervisor import run\nfrom symbiont_datad import __version__"),
        ("__main__.py", "from symbiont_datad.cli import main"),
        ("guard/guard.py", "from symbiont_datad.guard.drift import x\nfrom . import watch\nfrom .drift import y"),
        ("guard/__init__.py", "from . import watch"),
        ("settings.py", "import symbiont_datad.settings_sections, symbiont_datad.quantities"),
        ("restic/pack.py", "import os\nfrom symbiont_datad.restic import crypto"),
        ("__init__.py", "from symbiont_datad.settings import FilePersistenceConfig"),
        ("jobs/sweep.py", "LOGGER = 'symbiont_datad'\n"),
    ],
)
def test_right_arrows_pass(path: str, source: str) -> None:
    """What points down, stays in its room or asks for the version is no fault."""
    assert [] == faults({"cli/__init__.py": "", path: source})


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nif sys.platform == 'darwin': ...",
        "import os\n\nos.uname()",
        "\nimport platform",
        "\nfrom sys import platform",
    ],
)
def test_platform_questions_are_found(source: str) -> None:
    """Every way to ask for the platform is seen; a word alone is none."""
    assert len(list(platform_questions(source))) == 1
    assert [] == list(platform_questions("platform = 'sys.platform'; layout.platform"))


_SNAPSHOTS = {"cryptography", "zstandard", "obstore", "pyrage", "msgspec", "numpy"}
LIGHT = [
    ("__init__", {"pydantic", "typer", "rich", "watchdog", "apscheduler", *_SNAPSHOTS}),
    ("jobs.child", {"pydantic", "pydantic_settings", "typer", "rich", "watchdog", "apscheduler", *_SNAPSHOTS}),
    ("jobs.rotate", {"pydantic", "apscheduler", *_SNAPSHOTS}),
    ("jobs.sweep", {"pydantic", "apscheduler", *_SNAPSHOTS} - {"msgspec"}),
    ("supervisor", {"rich", "typer", "prometheus_client", *_SNAPSHOTS}),
]
"""Modules that begin a process which stays in memory, and what must not come with them."""


@pytest.mark.parametrize(("module", "heavy"), LIGHT, ids=[module for module, _ in LIGHT])
def test_light_processes_load_nothing_heavy(module: str, heavy: set[str]) -> None:
    """A process that begins with this module does not carry packages that it never needs."""
    name = NAME if module == "__init__" else f"{NAME}.{module}"
    code = f"""
import importlib, sys
try:
    importlib.import_module({name!r})
except ModuleNotFoundError as error:
    sys.exit(repr(error) if error.name != {name!r} else 77)
print(*sorted(sys.modules))
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    if result.returncode == 77:
        pytest.skip(f"there is no {name} yet")
    assert (0, "") == (result.returncode, result.stderr)
    assert set() == heavy & {loaded.split(".")[0] for loaded in result.stdout.split()}
