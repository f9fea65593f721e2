"""What comes in between while a sweep heals, at each of the moments at which it looks whether to stop."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from symbiont_datad.formats.age import new_identity, recipient_of, seal
from symbiont_datad.formats.state_name import context_name
from symbiont_datad.jobs.context import JobSettings, Keep, StateSettings
from symbiont_datad.report import Outcome
from tests import contexts
from tests.jobs.making import DAY, NOW, At, Ran, ledger_of, settings_for, stop_after, write
from tests.jobs.snapshotting import cheap_repository
from tests.jobs.test_heal import (
    agents,
    backup_place,
    content,
    place,
    quarantined,
    relative,
    saved,
    sweep,
    told,
)
from tests.support import NOBODY

BROKEN = b'{"agent_id": '


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree, and an empty repository that opens fast."""
    return cheap_repository(settings_for(tmp_path))


def at_each_moment(
    settings: JobSettings, prepare: Callable[[], object], do: Callable[[], object]
) -> Iterator[tuple[bool, Ran]]:
    """Sweeps, each after `prepare`, in which `do` is done at one moment later each time. Whether it was done comes with
    each; the last sweep had so few moments that it was not.
    """
    for moment in count():
        prepare()
        at = At(moment, do)
        ran = sweep(settings, stopping=at, now=NOW + moment)
        yield at.done, ran
        if not at.done:
            assert moment > 2
            return


def test_a_save_at_any_moment_wins(settings: JobSettings) -> None:
    """An agent saves a whole context while the damaged one is about to be healed: that stays, and nothing is moved."""
    path = place(settings, "a")
    newer = content("a", text="newer")

    def prepare() -> None:
        write(path, BROKEN, age_s=60)
        write(backup_place(settings, "a", DAY), content("a"))

    for done, ran in at_each_moment(settings, prepare, lambda: path.write_bytes(newer)):
        assert (newer if done else content("a")) == path.read_bytes()
        assert (ran.report.counts["healed"] > 0) == bool(quarantined(settings))
        assert {BROKEN} >= {*quarantined(settings).values()}


def test_a_backup_that_goes_at_any_moment_takes_no_state_with_it(settings: JobSettings) -> None:
    """The damaged context stays where it is, or the backup was read before: never neither of them."""
    path, backup = place(settings, "a"), backup_place(settings, "a", DAY)

    def prepare() -> None:
        write(path, BROKEN, age_s=60)
        write(backup, content("a"))

    healed = 0
    for _, ran in at_each_moment(settings, prepare, backup.unlink):
        healed += ran.report.counts["healed"]
        assert (content("a") if ran.report.counts["healed"] else BROKEN) == path.read_bytes()
        assert healed == len(list(Path(settings.layout.root, ".quarantine").glob("*")))


def test_a_save_in_the_other_mode_at_any_moment_stays(settings: JobSettings) -> None:
    """A damaged context in the mode that the runtime does not use goes into quarantine, but never one saved since."""
    settings = replace(settings, state=StateSettings(compression="on"))
    write(place(settings, "a"), content("a"))
    other = place(settings, "a", gzipped=False)
    newer = content("a", gzipped=False, text="newer")
    for done, ran in at_each_moment(settings, lambda: write(other, BROKEN, age_s=60), lambda: other.write_bytes(newer)):
        assert (done, {BROKEN} if told(ran) else set()) == (other.exists(), {*quarantined(settings).values()})
        if done:
            assert newer == other.read_bytes()
        else:
            (finding,) = ran.report.findings
            assert "it was truncated: " in finding.detail
            assert f"the agent's state is in {place(settings, 'a').name}" in finding.detail
    assert content("a") == place(settings, "a").read_bytes()


def test_asked_to_stop_at_any_moment_each_agent_has_one_state(settings: JobSettings) -> None:
    """What is healed is healed as a whole, the others are as they were, and the report says that it was interrupted."""
    paths = [place(settings, name) for name in "ab"]
    for path, name in zip(paths, "ab", strict=True):
        saved(settings, path, content(name), NOW - DAY)
        write(path, BROKEN, age_s=60)
    seen = set()
    for looks in count():
        ran = sweep(settings, stopping=stop_after(looks), now=NOW + looks)
        whole = [content(name) == path.read_bytes() for path, name in zip(paths, "ab", strict=True)]
        assert [True, True] == [good or BROKEN == path.read_bytes() for good, path in zip(whole, paths, strict=True)]
        assert sum(whole) == len(quarantined(settings))
        seen.add(sum(whole))
        if ran.report.outcome is not Outcome.INTERRUPTED:
            break
    assert {0, 1, 2} == seen


# Which versions don't count


def test_another_users_version_in_a_snapshot_takes_no_agents_place(settings: JobSettings) -> None:
    """As root: it may have been a second name of that user's file when the snapshot was made."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = place(settings, "a")
    saved(settings, path, content("a", text="own"), NOW - 2 * DAY)
    os.chown(path, NOBODY, NOBODY)
    saved(settings, path, content("a", text="of somebody else"), NOW - DAY)
    path.unlink()
    write(path, BROKEN, age_s=60)
    sweep(settings)
    assert content("a", text="own") == path.read_bytes()


def test_the_same_damage_is_judged_once(settings: JobSettings) -> None:
    """However many snapshots have it, and whether or not anything else in them has changed."""
    settings = replace(settings, snapshots=replace(settings.snapshots, backups=Keep(last=9)))
    path, other = place(settings, "a"), place(settings, "b")
    saved(settings, path, content("a"), NOW - 5 * DAY)
    for days in (4, 3):
        write(other, content("b", text=f"{days}"), age_s=days * DAY)
        saved(settings, path, BROKEN, NOW - days * DAY)
        os.utime(path, (NOW - 4 * DAY - 3600, NOW - 4 * DAY - 3600))
    write(Path(settings.layout.root, "logs/system/a.log"))
    saved(settings, path, BROKEN, NOW - 2 * DAY)
    write(path, BROKEN, age_s=60)
    assert [("context_restored", relative(settings, path))] == told(sweep(settings))
    assert content("a") == path.read_bytes()


def test_a_backup_that_may_be_half_written_says_nothing(settings: JobSettings) -> None:
    """Whether its context is as another version writes it: it is healed from one that is whole."""
    value = contexts.context("a")
    del value["retention_policy"]
    path = write(place(settings, "a"), contexts.zipped(value), age_s=3600)
    write(backup_place(settings, "a", DAY), content("a"))
    write(backup_place(settings, "a", 1), contexts.zipped(value), age_s=1)
    assert [("context_restored", relative(settings, path))] == told(sweep(settings))
    assert content("a") == path.read_bytes()


def test_what_was_sealed_is_judged_anew_with_its_key(settings: JobSettings) -> None:
    """Without the key a sealed context counts as whole; once it is there, what is inside is looked at."""
    identity = new_identity()
    name = context_name(contexts.agent_id("a"), gzip=True, sealed=True)
    path = write(agents(settings) / name, seal(content("a")[:40], recipient_of(identity)))
    assert () == sweep(settings).report.findings
    where = settings.snapshots.repository
    keyed = replace(where, secrets=replace(where.secrets, key=identity))
    settings = replace(settings, snapshots=replace(settings.snapshots, repository=keyed))
    (finding,) = sweep(settings, now=NOW + 1).report.findings
    assert ("context_truncated", relative(settings, path)) == (finding.kind, finding.path)


def test_a_mark_of_another_version_of_ours_is_no_verdict(settings: JobSettings) -> None:
    """The file is judged as if it was new."""
    path = write(place(settings, "a"), content("a"))
    sweep(settings)
    with ledger_of(settings) as ledger:
        (mark,) = (mark for name, mark in ledger.marks().items() if name == relative(settings, path))
        ledger.update_marks({relative(settings, path): f"{mark.partition(' ')[0]} of-another-time gzip"}, ())
    write(path.with_name("other.json"), b"{}", age_s=60)  # so that there is something to look at
    assert 2 == sweep(settings, now=NOW + 1).report.counts["checked"]
