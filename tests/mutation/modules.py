"""Which sources are mutated together, and the tests that have to notice."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Module:
    """`sources`: patterns of files, relative to the package. `tests`: what is run, relative to `tests/`."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


MODULES: Mapping[str, Module] = {
    "retention": Module(("retention/*.py",), ("retention",)),
    "forget": Module(("restic/forget.py",), ("restic/test_forget.py",)),
    "drift": Module(
        ("guard/drift.py", "guard/backoff.py", "guard/scope.py"),
        ("guard/test_drift.py", "guard/test_backoff.py", "guard/test_scope.py"),
    ),
    "schedule": Module(("timetable.py",), ("test_timetable.py",)),
    "migration": Module(("migrate/plan*.py",), ("migrate/test_plan.py", "migrate/test_plan_told.py")),
}
