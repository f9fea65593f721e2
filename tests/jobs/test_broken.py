"""Damaged files of a cache go, each is read once, and nobody's half-written file is touched."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops import lease
from symbiont_datad.jobs import broken
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.jobs.making import DAY, run, settings_for, stop_after, write
from tests.support import mapped

RULE = Rule("cache", "prompts/cache", max_age_s=30 * DAY, age_by=AgeBy.USED, cache=True, broken=True)


@contextmanager
def reading() -> Iterator[list[str]]:
    """The names of the files that are read while the block runs."""
    read: list[str] = []
    real = broken._damage_of

    def noting(entry, dir_fd):  # type: ignore[no-untyped-def]
        read.append(entry.path.rpartition("/")[2])
        return real(entry, dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broken, "_damage_of", noting)
        yield read


def cache_in(base: Path) -> Path:
    """A cache with files of each kind."""
    cache = base / "data/prompts/cache"
    for name, content in (("empty.json", b""), ("nul.json", b"\0" * 50), ("half.json", b'{"a": '), ("good.json", b"{}"),
                          ("sub/empty.bin", b""), ("any.bin", b"\0\1")):  # fmt: skip
        write(cache / name, content)
    return cache


def soon(seconds: float) -> float:
    """A time after now: what was just written is settled by then."""
    return time.time() + seconds


def test_damaged_files_go_with_the_reason(tmp_path: Path) -> None:
    """And no others; the dry run says the same."""
    settings = settings_for(tmp_path, RULE, undo_window_s=DAY)
    cache = cache_in(tmp_path)
    now = soon(60)
    dry = run("clean", settings, now=now, dry_run=True)
    ran = run("clean", settings, now=now)
    assert dry.report.actions == ran.report.actions
    assert [
        ("prompts/cache/empty.json", "broken: it is empty"),
        ("prompts/cache/half.json", "broken: it is no JSON: Input data was truncated"),
        ("prompts/cache/nul.json", "broken: it is nothing but NUL bytes"),
        ("prompts/cache/sub/empty.bin", "broken: it is empty"),
    ] == [(action.path, action.reason) for action in ran.report.actions]
    assert ["any.bin", "good.json", "sub"] == sorted(os.listdir(cache))


def test_each_file_is_read_once(tmp_path: Path) -> None:
    """The next run reads nothing again; where the clock went back, all is read, because new files may look old."""
    settings = settings_for(tmp_path, replace(RULE, max_age_s=None))
    cache = cache_in(tmp_path)
    with reading() as first:
        run("clean", settings, now=soon(60))
    with reading() as second:
        run("clean", settings, now=soon(120))
    write(cache / "new.json", b"no json")
    os.utime(cache / "new.json", (0, 0))
    with reading() as third:
        run("clean", settings, now=soon(60))
    with reading() as fourth:
        run("clean", settings, now=soon(61))
    assert (6, []) == (len(first), second)
    assert (["any.bin", "good.json", "new.json"], []) == (third, fourth)


def test_what_is_new_since_the_last_run_is_read(tmp_path: Path) -> None:
    """Everything that changed after the time up to which all was judged."""
    settings = settings_for(tmp_path, RULE)
    cache = cache_in(tmp_path)
    run("clean", settings, now=time.time())  # all are unsettled, so all are still to be judged
    assert 6 == len([path for path in cache.rglob("*") if path.is_file()])
    write(cache / "new.json", b"no json")
    os.utime(cache / "new.json", (0, 0))
    with reading() as read:
        run("clean", settings, now=soon(60))
    assert 7 == len(read)


def test_what_may_be_half_written_is_spared(tmp_path: Path) -> None:
    """A file that changed a moment ago, and one that is open, stay; protected ones are not even read."""
    settings = settings_for(tmp_path, replace(RULE, protect=("half.json",)))
    cache = cache_in(tmp_path)
    assert () == run("clean", settings, now=soon(5)).report.actions
    with (cache / "empty.json").open("ab"), reading() as read:
        run("clean", settings, now=soon(60))
    assert ["any.bin", "empty.json", "good.json", "half.json", "sub"] == sorted(os.listdir(cache))
    assert "half.json" not in read


@pytest.mark.skipif(lease._SET_LEASE is None, reason="this system has no leases")
def test_what_was_being_written_is_judged_later(tmp_path: Path) -> None:
    """Who writes it may not be seen by other means: here it is a mapping. It is not forgotten for that."""
    settings = settings_for(tmp_path, RULE)
    cache = cache_in(tmp_path)
    with mapped(cache / "half.json"):
        ran = run("clean", settings, now=soon(60))
    assert "prompts/cache/half.json" not in [action.path for action in ran.report.actions]
    ran = run("clean", settings, now=soon(120))
    assert ["prompts/cache/half.json"] == [action.path for action in ran.report.actions]


def test_asked_to_stop_it_judges_the_rest_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken for judged that was not read."""
    monkeypatch.setattr(broken, "_BETWEEN_LOOKS", 2)
    settings = settings_for(tmp_path, RULE)
    cache = cache_in(tmp_path)
    run("clean", settings, now=soon(60), stopping=stop_after(3))
    run("clean", settings, now=soon(61))
    assert ["any.bin", "good.json", "sub"] == sorted(os.listdir(cache))


def test_without_the_setting_nothing_is_read(tmp_path: Path) -> None:
    """They go by age and size alone."""
    settings = settings_for(tmp_path, replace(RULE, broken=False))
    cache_in(tmp_path)
    with reading() as read:
        assert () == run("clean", settings, now=soon(60)).report.actions
    assert [] == read


def test_without_marks_nothing_is_judged(tmp_path: Path) -> None:
    """A ledger that has lost them is told; files are not read all over again at each run, and none goes."""
    settings = settings_for(tmp_path, RULE)
    cache = cache_in(tmp_path)
    run("usage", settings)
    with closing(sqlite3.connect(settings.ledger_path)) as ledger, ledger:
        ledger.execute("drop table seen")
    ran = run("clean", settings, now=soon(60))
    assert "ledger_failed" in ran.told
    assert (cache / "empty.json").exists()
