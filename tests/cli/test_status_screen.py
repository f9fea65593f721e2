"""The screen of `status`: what it tells of prompts, healing, old places and the rest, and how much of it."""

from dataclasses import replace

from symbiont_datad.cli.status_screen import Terminal, screen
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.ledger_schema import Row, Run
from symbiont_datad.live import LiveState
from symbiont_datad.report import CacheUse, Finding, Legacy, Severity
from symbiont_datad.status import Status

NOW = 100_000.0
LIVE = LiveState(7, NOW - 5000, NOW - 10, True, True, every_s=40.0, version="1")
GOOD = Status("/srv/data", 7, LIVE, (), None, {}, {}, (), version="1")


def shown(found: Status, width: int = 100) -> list[str]:
    """The lines after the verdict."""
    lines = list(screen(found, NOW, Terminal(width)))
    assert "all good: /srv/data is kept by process 7 for 1h 23m" in lines[0]
    return lines[2:]


def test_prompts_by_template_the_most_used_first() -> None:
    """Of several days together; how long they took where that is known; the rest is a number."""
    executions = [
        Executions("2026-11-20", "greet", 10, 2048, timed=2, latency_ms=3000.0, slowest_ms=2000.0),
        Executions("2026-11-21", "greet", 5, 1024, timed=1, latency_ms=1500.0, slowest_ms=1500.0),
        Executions("2026-11-21", "", 7, 100),
        *(Executions("2026-11-21", f"rare {number}", 1, 10) for number in range(5)),
    ]
    head, first, second, *_, last = shown(replace(GOOD, executions=tuple(executions)))
    assert "template                    runs        size      mean   slowest  since 2026-11-20" == head
    assert "greet                         15       3 KiB     1.5 s       2 s" == first
    assert "unknown                        7       100 B         –         –" == second
    assert "… and 2 more" == last
    assert "template                    runs        size" == shown(replace(GOOD, executions=tuple(executions)), 60)[0]


def test_what_a_limit_of_the_cache_would_free() -> None:
    """By age and by size; what goes at the next run."""
    use = (CacheUse(3600.0, 6, 600), CacheUse(86400.0, 3, 300, 0), CacheUse(float("inf"), 1, 100, 100))
    first, second, third = shown(replace(GOOD, cache_use=use))
    assert "cache: 10 files, 1000 B; used within 1h 60 %, 1d 90 %" == first
    assert second.startswith("  would free: max_age 1h 400 B, 1d 100 B; max_bytes 500 B ")
    assert "  100 B go at the next run of retention" == third
    assert [] == shown(replace(GOOD, cache_use=(CacheUse(3600.0, 0, 0),)))


REASON = "cut; from a backup; more"


def test_what_was_healed_is_told_up_to_five() -> None:
    """With its reason; the command that tells of the others."""
    rows = tuple(
        Row(NOW - 60, "sweep", "context_restored", f"state/agents/{number}.json", "state.heal", REASON, 1, "done")
        for number in range(7)
    )
    lines = shown(replace(GOOD, healed=rows))
    assert "context restored        state/agents/0.json  (1m ago)" == lines[0]
    assert "  cut; from a backup" == lines[1]
    assert "… and 2 more; all of them: symbiont-datad events --job sweep" == lines[-1]


def test_old_places_and_what_to_do() -> None:
    """How each goes on working."""
    places = (
        Legacy("/home/ada/contexts", "contexts", "mirror", False, NOW - 3600, NOW - 60, 5, 2),
        Legacy("/home/ada/logs", "logs", "symlink", False, None, None, 5, 0),
    )
    lines = shown(replace(GOOD, live=replace(LIVE, legacy=places)))
    assert [
        "legacy contexts         /home/ada/contexts  (mirrored since 1h, last brought 1m ago, 2 conflicts)",
        "legacy logs             /home/ada/logs  (a link to the tree)",
        "what to do: symbiont-datad migrate --finish",
    ] == lines
    new = Legacy("/home/ada/old", "contexts", "not migrated", False, None, None, 0, 0)
    assert "what to do: symbiont-datad migrate" == shown(replace(GOOD, live=replace(LIVE, legacy=(new,))))[-1]


def test_what_was_done_today_and_how_jobs_went() -> None:
    """Runs that have not ended, in a wide and in a narrow terminal."""
    runs = {"backup": Run("backup", NOW - 60, None, None, 0, 0, "", {})}
    found = replace(GOOD, runs=runs, live=replace(LIVE, active_jobs=("backup",)), actions_today={"log_rotated": 1200})
    for width in (100, 60):
        text = "\n".join(shown(found, width))
        assert "running" in text
        assert "in the last day: 1,200 log rotated" in text


def test_many_remarks_are_cut() -> None:
    """Five, and how many more there are."""
    findings = tuple((Finding(f"kind_{n}", f"p{n}", Severity.ERROR, "d"), NOW - 60) for n in range(8))
    lines = list(screen(replace(GOOD, findings=findings), NOW))
    assert "… and 3 more; all of them: symbiont-datad check" == lines[5]
