"""Which sources are mutated together, and the tests that have to notice."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Module:
    """`sources`: patterns of files, relative to the package. `tests`: what is run, relative to `tests/`.

    `without`: those of them that measure time, and would notice a mutant by chance.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


MODULES: Mapping[str, Module] = {
    "retention": Module(
        ("retention/*.py",),
        ("retention",),
        (
            "retention/test_plan.py::test_a_plan_of_many_files_takes_no_square_of_their_time",
            "retention/test_patterns.py::test_a_pattern_is_decided_at_once",
        ),
    ),
    "forget": Module(("restic/forget.py",), ("restic/test_forget.py",)),
    "drift": Module(
        ("guard/drift.py", "guard/backoff.py", "guard/scope.py"),
        ("guard/test_drift.py", "guard/test_backoff.py", "guard/test_scope.py"),
    ),
    "schedule": Module(("timetable.py",), ("test_timetable.py",)),
    "migration": Module(("migrate/plan*.py",), ("migrate/test_plan.py", "migrate/test_plan_told.py")),
}
