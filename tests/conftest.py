"""Fixtures for every test, and the rule that in CI no test is skipped in silence."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import hypothesis
import pytest

from tests.support import AMPLE, NOBODY, Tree, build_tree, run_as

T = TypeVar("T")

# What runs tests in the background of a shell has SIGINT ignored, and so would the daemons and commands under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes depends on what else the machine does; pytest's own timeout is the limit.
hypothesis.settings.register_profile("datad", deadline=None)
hypothesis.settings.load_profile("datad")
# For mutants (tests/mutation): the same few examples each time, and none made small that nobody looks at.
hypothesis.settings.register_profile(
    "mutation",
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)

FINE_SKIP = "not on this platform"
"""How the reason of a skip begins that is right even in CI."""


class AsNobody(Protocol):
    """Calls a function as the user nobody; see `run_as`."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """No test leaves its way of logging to the next one in the same process."""
    yield
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()
    if "symbiont_datad.events" in sys.modules:
        sys.modules["symbiont_datad.events"]._silent = False  # type: ignore[attr-defined]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Tree], Path]:
    """Builds a directory from data: `tree({"logs": {"a.log": b"…"}})` returns its path."""
    return lambda data: build_tree(tmp_path / "tree", data)


@pytest.fixture
def ample(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test in which nothing is to be noteworthy: on a disk that is nearly full, something would be."""
    for name, value in AMPLE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def as_nobody() -> AsNobody:
    """Calls a function as the user nobody and returns its result; for a path that nobody can reach see `open_path`."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")

    def call(function: Callable[[], T], /) -> T:
        return run_as(NOBODY, function)

    return call


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A fresh directory that every user can enter and read, unlike `tmp_path`, whose parent is closed to others."""
    path = Path(tempfile.mkdtemp(prefix="datad-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `DATAD_NO_SKIP` in the environment, a test that is skipped fails, so that CI can't lose one unseen."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or not os.environ.get("DATAD_NO_SKIP"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(FINE_SKIP):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped where nothing may be skipped: {reason}"
