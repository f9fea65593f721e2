"""What the tests of jobs share: settings for a small tree, contexts as the runtime writes them, and runs."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from symbiont_datad.jobs.context import JobSettings, Keep, RepositorySettings, SnapshotSettings
from symbiont_datad.jobs.runner import run_here
from symbiont_datad.jobs.secrets import Secrets
from symbiont_datad.layout import Category, Directory, Layout
from symbiont_datad.ledger import Ledger
from symbiont_datad.quantities import Share
from symbiont_datad.report import JobReport
from symbiont_datad.retention.rules import Rule
from tests import contexts

NOW = 1_795_000_000.0
DAY = 86_400.0

ROWS = (
    "state", "state/agents", "state/agents/archives", "state/sessions", "logs", "logs/system", "logs/audit", "prompts",
    "prompts/history", "prompts/cache", "vector_db", "vector_db/collections",
)  # fmt: skip
OPEN = {"state/agents/archives", "prompts/history", "vector_db/collections"}


def snapshots_in(repository: Path | str, password: str | None = None, **other: Any) -> SnapshotSettings:
    """Settings for snapshots in a repository at the path; `other` are fields of SnapshotSettings."""
    secrets = Secrets(encrypted=False, key_file=Path("/nonexistent/key"), password=password)
    fields: dict[str, Any] = {
        "backups": Keep(last=3),
        "autosaves": Keep(last=2),
        "include_caches": False,
        "min_free": Share(amount=0),
        "read_all_within_s": 30 * DAY,
    }
    return SnapshotSettings(repository=RepositorySettings(str(repository), secrets), **{**fields, **other})


def settings_for(base: Path, *rules: Rule, file_mode: int | None = None, uid: int = -1, **other: Any) -> JobSettings:
    """Settings for a tree at `base/data`, which is made with its directories; `other` are fields of JobSettings."""
    root = base / "data"
    for path in ROWS:
        (root / path).mkdir(parents=True, exist_ok=True)
    layout = Layout(
        root=str(root),
        directories=(Directory("", 0o755, ""), *(Directory(path, 0o755, "", open=path in OPEN) for path in ROWS)),
        categories=tuple((category, category.value) for category in Category if category is not Category.OTHER),
        rules=rules,
        file_mode=file_mode,
        uid=uid,
    )
    fields: dict[str, Any] = {
        "snapshots": snapshots_in(base / "backups"),
        "backup_count": 3,
        "settle_s": 10.0,
        "keep_if_open": True,
        "require_snapshot": True,
        "log_format": "json",
        "log_level": "info",
    }
    return JobSettings(layout=layout, daemon_dir=base / "datad", **{**fields, **other})


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: its report and its own events (those of every job left out), each as its name and its fields."""

    report: JobReport
    events: list[dict[str, Any]]

    @property
    def told(self) -> list[str]:
        """The names of the events."""
        return [event["event"] for event in self.events]


def run(name: str, settings: JobSettings, *, now: float = NOW, **options: Any) -> Ran:
    """Run a job as a command does, with the ledger of the settings."""
    with Ledger(settings.ledger_path) as ledger, structlog.testing.capture_logs() as logs:
        report = run_here(name, settings, ledger, now=now, **options)
    return Ran(report, [dict(log) for log in logs if not log["event"].startswith("job_")])


@contextmanager
def ledger_of(settings: JobSettings) -> Iterator[Ledger]:
    """The ledger, to look at."""
    with Ledger(settings.ledger_path) as ledger:
        yield ledger


def write(path: Path, content: bytes = b"x" * 100, age_s: float = DAY) -> Path:
    """A file that was last written and read `age_s` seconds before NOW."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


def context(zipped: bool = True, text: str = "naïve ✓") -> bytes:
    """The content of a context."""
    value = contexts.context(text=text)
    return contexts.zipped(value) if zipped else contexts.plain(value)


@dataclass(slots=True)
class At:
    """A `stopping` that says no, and does something when it is asked for the time with that number, the first being 0.

    `done`: whether it was asked so often.
    """

    moment: int
    do: Callable[[], object]
    done: bool = False
    _asked: int = 0

    def __call__(self) -> bool:
        if self._asked == self.moment:
            self.do()
            self.done = True
        self._asked += 1
        return False


def stop_after(looks: int) -> Callable[[], bool]:
    """A `stopping` that says yes from the given look on."""
    seen = 0

    def stopping() -> bool:
        nonlocal seen
        seen += 1
        return seen > looks

    return stopping
