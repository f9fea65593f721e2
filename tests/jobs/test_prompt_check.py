"""Templates that can't be used or were not saved, and cached results that are broken, are told of."""

import json
import os
import time
from pathlib import Path

import pytest

from symbiont_datad.jobs import prompt_check
from symbiont_datad.jobs.context import JobContext, JobSettings
from symbiont_datad.jobs.prompt_check import prompt_findings
from symbiont_datad.ledger import Ledger
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.rules import Rule
from tests.conftest import AsNobody
from tests.jobs.making import NOW, run, settings_for, write
from tests.jobs.snapshotting import cheap_repository
from tests.support import NOBODY

TEMPLATES, CACHE = "prompts/templates", "prompts/cache"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with a template that was saved, and a cached result."""
    settings = cheap_repository(settings_for(tmp_path))
    write(tmp_path / "data" / TEMPLATES / "good.md", b"# good\n")
    write(tmp_path / "data" / CACHE / "good.json", b'{"result": "x"}')
    run("templates", settings, now=NOW)
    return settings


def found(settings: JobSettings, now: float = NOW) -> list[Finding]:
    """What is found."""
    with Ledger.for_reading(settings.ledger_path) as ledger:
        return prompt_findings(JobContext(settings, ledger, 0, now, dry_run=True))


def test_what_is_as_it_should_be(settings: JobSettings) -> None:
    """Nothing is found."""
    assert [] == found(settings)


def test_templates_that_cant_be_used(settings: JobSettings, tmp_path: Path) -> None:
    """Each with what is wrong with it; an empty one is only a note."""
    place = tmp_path / "data" / TEMPLATES
    write(place / "empty.md", b"")
    write(place / "nul.md", b"\0" * 50)
    write(place / "latin.md", b"na\xefve")
    write(place / "large.md", b"x" * (5 << 20))
    (place / "link.md").symlink_to("good.md")
    (place / "twin.md").hardlink_to(write(tmp_path / "elsewhere"))
    os.mkfifo(place / "fifo.md")
    run("templates", settings, now=NOW)
    told = {one.path.rpartition("/")[2]: (one.severity, one.detail) for one in found(settings)}
    assert {"empty.md", "nul.md", "latin.md", "large.md", "link.md", "twin.md", "fifo.md"} == told.keys()
    assert (Severity.INFO, "it is empty") == told["empty.md"]
    assert (Severity.WARNING, "it is no UTF-8 from byte 2 on") == told["latin.md"]
    assert "NUL" in told["nul.md"][1]
    assert "symbolic link" in told["link.md"][1]
    assert "2 names" in told["twin.md"][1]


def test_templates_that_were_not_saved(settings: JobSettings, tmp_path: Path) -> None:
    """A change that no snapshot has although there was time enough; one of a minute ago is none yet."""
    write(tmp_path / "data" / TEMPLATES / "good.md", b"# better\n", 60.0)
    assert [] == found(settings)
    assert ["templates_unsaved"] == [one.kind for one in found(settings, NOW + 3600)]
    run("templates", settings, now=time.time())
    assert [] == found(settings, NOW + 3600)


def test_broken_cached_results(settings: JobSettings, tmp_path: Path) -> None:
    """Empty, cut off, filled with NUL; not what is being written, and nothing but JSON."""
    place = tmp_path / "data" / CACHE
    write(place / "empty.json", b"")
    write(place / "cut.json", json.dumps({"result": "x" * 100}).encode()[:50])
    write(place / "nul.json", bytes(100))
    write(place / "hot.json", b"{", 1.0)
    write(place / "other.bin", b"\xff\xfe")
    assert {"cut.json", "empty.json", "nul.json"} == {one.path.rpartition("/")[2] for one in found(settings)}
    assert {"cache_damaged"} == {one.kind for one in found(settings)}


def test_many_broken_results_are_counted(
    settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some by name, the others as a number; so many are read, the newest, and no more."""
    for number in range(30):
        write(tmp_path / "data" / CACHE / f"{number:02}.json", b"{", 100.0 + number)
    told = found(settings)
    assert (20, True) == (len(told), told[-1].detail.endswith("(and 10 more of them)"))
    monkeypatch.setattr(prompt_check, "_CACHED", 5)
    assert [f"{CACHE}/{number:02}.json" for number in range(5)] == [one.path for one in found(settings)]


def test_a_cache_that_nobody_trims(tmp_path: Path) -> None:
    """Far above its limit: retention does not run."""
    settings = settings_for(tmp_path, Rule("cache", CACHE, max_bytes=1000))
    write(tmp_path / "data" / CACHE / "a.bin", b"x" * 1900)
    assert [] == found(settings)
    write(tmp_path / "data" / CACHE / "b.bin", b"x" * 200)
    assert ["cache_untrimmed"] == [one.kind for one in found(settings)]


def test_what_cant_be_read_or_is_of_another_kind(open_path: Path, as_nobody: AsNobody) -> None:
    """A template that is closed to the daemon is told of; of cached results only what is surely broken is."""
    settings = settings_for(open_path)
    write(open_path / "data" / TEMPLATES / "closed.md").chmod(0o600)
    write(open_path / "data" / CACHE / "closed.json", b"{").chmod(0o600)
    write(open_path / "data" / CACHE / "packed.json", b"\x1f\x8bpacked")
    (open_path / "data" / CACHE / "link.json").symlink_to("nowhere")
    run("templates", settings, now=NOW, dry_run=True)
    for path in (settings.daemon_dir, *settings.daemon_dir.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    told = as_nobody(lambda: [(one.kind, one.detail) for one in found(settings)])
    assert ("template_unusable", "it can't be read") in told
    assert [] == [one for one in told if one[0] == "cache_damaged"]
