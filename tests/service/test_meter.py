"""The meter: gathered when somebody asks, once for many; and the textfile."""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.service import meter as module
from symbiont_datad.service.figures import Facts
from symbiont_datad.service.meter import Meter, Textfile
from symbiont_datad.service.request import Answer
from tests.conftest import AsNobody
from tests.process.running import until
from tests.service.test_figures import FACTS


class Source:
    """Hands over facts, and counts how often; `error` is raised instead."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self) -> Facts:
        self.asked += 1
        self.go_on.wait(20.0)
        if self.error is not None:
            raise self.error
        return replace(FACTS, warnings=self.asked)


@pytest.fixture
def source() -> Source:
    """Where the facts come from."""
    return Source()


@pytest.fixture
def meter(source: Source) -> Iterator[Meter]:
    """A meter over it."""
    meter = Meter(source)
    yield meter
    source.go_on.set()
    meter.close()


def asked(meter: Meter) -> Answer:
    """What somebody hears who asks, and waits for the answer."""
    found = meter.answer()
    return found if isinstance(found, Answer) else found.result(20.0)


def warnings_in(text: bytes) -> int:
    """One figure of the text, which `Source` counts up."""
    line = next(line for line in text.splitlines() if line.startswith(b"symbiont_datad_warnings"))
    return int(float(line.split()[-1]))


def test_many_who_ask_share_an_answer(meter: Meter, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand answers cost one gathering; after a while the next one is new."""
    monkeypatch.setattr(module, "_FRESH_S", 1000.0)
    first = asked(meter)
    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (first.status, first.content_type)
    assert all(meter.answer() is first for _ in range(1000))
    assert 1 == source.asked
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    assert isinstance(meter.answer(), Future)
    until(lambda: source.asked == 2)


def test_nothing_runs_before_somebody_asks(source: Source) -> None:
    """No thread, no gathering, and nothing to end."""
    before = threading.active_count()
    meter = Meter(source)
    meter.follow(None, None)
    assert (before, 0) == (threading.active_count(), source.asked)
    meter.close()


def test_who_asks_never_waits_for_the_gathering(meter: Meter, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it hangs, there is no answer yet; when that takes long, the one before is the answer."""
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    source.go_on.clear()
    coming = meter.answer()
    assert isinstance(coming, Future)
    assert coming is meter.answer()
    source.go_on.set()
    assert 1 == warnings_in(coming.result(20.0).body)
    source.go_on.clear()
    assert isinstance(meter.answer(), Future)
    monkeypatch.setattr(module, "_SLOW_S", 0.0)
    assert 1 == warnings_in(asked(meter).body)


def test_facts_that_cannot_be_gathered(meter: Meter, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks hears that it went wrong, and no old figures; when it works again, there are new ones."""
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    source.error = ZeroDivisionError("secret/path")
    answer = asked_until(meter, lambda answer: answer.status == 500)
    assert b"secret" not in answer.body
    source.error = None
    asked_until(meter, lambda answer: answer.status == 200)


def test_a_textfile_is_not_written_from_nothing(
    meter: Meter, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old figures stay, that they are old is a problem, and it is told once however often it fails."""
    source.error = ZeroDivisionError("odd")
    meter.follow(Textfile(tmp_path / "datad.prom", 0.02), None)
    until(lambda: source.asked >= 4 and "they could not be gathered" in meter.problem, 20.0)
    assert [] == os.listdir(tmp_path)
    source.error = None
    until((tmp_path / "datad.prom").exists, 20.0)
    until(lambda: not meter.problem, 20.0)
    said = capsys.readouterr().out
    assert (1, 1) == (said.count("ZeroDivisionError"), said.count("they could not be gathered"))


def asked_until(meter: Meter, fits: Callable[[Answer], bool]) -> Answer:
    """The first rendered answer that fits."""

    def look() -> Answer | None:
        meter.answer()
        found = meter._answer
        return found if found is not None and fits(found) else None

    found = until(look, 20.0)
    assert found is not None
    return found


def test_the_textfile(meter: Meter, tmp_path: Path) -> None:
    """It is there, whole, for everybody to read, and anew after the interval; nothing else is in its directory."""
    file = tmp_path / "datad.prom"
    meter.follow(Textfile(file, 0.02), "ada")
    until(file.exists, 20.0)
    seen = set[int]()
    deadline = time.monotonic() + 20.0
    while len(seen) < 3 and time.monotonic() < deadline:
        content = file.read_bytes()
        assert content.endswith(b"\n")
        assert b'symbiont_datad_build_info{python="3.13.1",tree="ada",version="1.2.3"} 1.0' in content
        seen.add(warnings_in(content))
    assert len(seen) >= 3
    assert 0o644 == stat.S_IMODE(file.stat().st_mode)
    meter.follow(None, None)
    until(lambda: os.listdir(tmp_path) == ["datad.prom"])


def test_a_textfile_that_cannot_be_written(meter: Meter, tmp_path: Path) -> None:
    """It is a problem in words as long as it is one, and the file comes when its directory does."""
    directory = tmp_path / "collector"
    meter.follow(Textfile(directory / "datad.prom", 0.02), None)
    until(lambda: "metrics.textfile" in meter.problem, 20.0)
    directory.mkdir()
    until((directory / "datad.prom").exists, 20.0)
    until(lambda: not meter.problem, 20.0)


def test_nobody_makes_us_write_elsewhere(meter: Meter, tmp_path: Path) -> None:
    """A link in the file's place is replaced, and what it leads to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    place = tmp_path / "collector"
    place.mkdir()
    (place / "datad.prom").symlink_to(victim)
    meter.follow(Textfile(place / "datad.prom", 0.02), None)
    until(lambda: not (place / "datad.prom").is_symlink(), 20.0)
    assert "mine" == victim.read_text()


def test_others_can_read_it(meter: Meter, open_path: Path, as_nobody: AsNobody) -> None:
    """node_exporter is another user."""
    file = open_path / "datad.prom"
    meter.follow(Textfile(file, 60.0), None)
    until(file.exists, 20.0)
    assert as_nobody(file.read_bytes).startswith(b"# HELP symbiont_datad_")
