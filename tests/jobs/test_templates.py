"""Each change of a prompt template is a version, and the log tells who changed what when."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops.lock import hold
from symbiont_datad.jobs.context import JobSettings, Keep
from symbiont_datad.jobs.repository import opened
from symbiont_datad.jobs.template_log import Change, What, in_force, template_log
from symbiont_datad.report import Outcome
from tests.jobs.making import Ran, context, ledger_of, run, settings_for, write
from tests.jobs.snapshotting import cheap_repository, content_of, held_by, snapshots

PATH = "prompts/templates/triage.md"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with one template, and state beside it."""
    settings = cheap_repository(settings_for(tmp_path))
    write(tmp_path / "data/state/agents/a.json.gz", context())
    save(settings, b"# triage\none\n")
    return settings


def save(settings: JobSettings, content: bytes, path: str = PATH) -> None:
    """What an editor does."""
    file = Path(settings.layout.root, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def templates(settings: JobSettings) -> Ran:
    """The job, now."""
    return run("templates", settings, now=time.time())


def log(settings: JobSettings, path: str = PATH) -> list[Change]:
    """The log of a template, the newest change first."""
    repository = opened(settings.repository)
    repository.need_index()
    lost: list[str] = []
    found = template_log(repository, settings.layout.tree, path, lambda name, _: lost.append(name))
    assert [] == lost
    return found


def test_a_change_is_a_snapshot_of_the_templates_alone(settings: JobSettings) -> None:
    """Each has the tag and the content of then; without a change there is none, and the repository isn't opened."""
    assert ["snapshot_created"] == templates(settings).told
    save(settings, b"# triage\ntwo\n")
    assert {"files": 1, "saved": 1} == templates(settings).report.counts
    assert [] == templates(settings).told
    first, second = snapshots(settings, "templates")
    assert [{PATH}, {PATH}] == [set(held_by(settings, one)) for one in (first, second)]
    assert b"# triage\none\n" == content_of(settings, held_by(settings, first)[PATH])
    assert b"# triage\ntwo\n" == content_of(settings, held_by(settings, second)[PATH])


def test_what_is_written_again_is_no_version(settings: JobSettings) -> None:
    """A deployment that writes the same content anew, or another mode, does not push the real versions out."""
    templates(settings)
    file = Path(settings.layout.root, PATH)
    content = file.read_bytes()
    file.unlink()
    save(settings, content)
    file.chmod(0o600)
    assert [] == templates(settings).told
    assert 1 == len(snapshots(settings, "templates"))


def test_an_autosave_is_no_version(settings: JobSettings) -> None:
    """What a sweep has saved already is a version all the same: autosaves are forgotten sooner."""
    run("sweep", settings, now=time.time())
    assert [1, 1] == [len(snapshots(settings, tag)) for tag in ("templates", "autosave")]
    save(settings, b"two")
    run("sweep", settings, now=time.time())
    assert [2, 2] == [len(snapshots(settings, tag)) for tag in ("templates", "autosave")]


def test_no_templates_are_no_version(settings: JobSettings) -> None:
    """In a tree that never had one nothing is saved; that the last one went is a version."""
    file = Path(settings.layout.root, PATH)
    file.unlink()
    assert [] == templates(settings).told
    save(settings, b"one")
    templates(settings)
    file.unlink()
    templates(settings)
    assert 2 == len(snapshots(settings, "templates"))


def test_older_versions_are_forgotten_by_their_own_rule(settings: JobSettings) -> None:
    """`[prompts]` says how many stay; other snapshots are not touched."""
    settings = replace(settings, snapshots=replace(settings.snapshots, templates=Keep(last=2)))
    run("backup", settings, now=time.time())
    for number in range(4):
        save(settings, b"x" * number)
        templates(settings)
    assert [2, 1] == [len(snapshots(settings, tag)) for tag in ("templates", "backup")]


def test_while_the_job_runs_a_sweep_leaves_it_to_it(settings: JobSettings) -> None:
    """Both see a change; one of them saves it."""
    with hold(settings.lock_path("templates"), "the job"):
        run("sweep", settings, now=time.time())
    assert [0, 1] == [len(snapshots(settings, tag)) for tag in ("templates", "autosave")]


def test_what_could_not_be_saved_is_gone_once_it_is(settings: JobSettings, tmp_path: Path) -> None:
    """A finding of the job ends with the sweep that puts it right."""
    templates(settings)
    (tmp_path / "backups").rename(tmp_path / "away")
    save(settings, b"two")
    ran = templates(settings)
    assert (Outcome.LEFT, ["snapshot_skipped"]) == (ran.report.outcome, ran.told)
    (tmp_path / "away").rename(tmp_path / "backups")
    run("sweep", settings, now=time.time())
    with ledger_of(settings) as ledger:
        assert [] == ledger.findings()


def test_a_dry_run_looks_and_saves_nothing(settings: JobSettings) -> None:
    """Nothing is made."""
    ran = run("templates", settings, now=time.time(), dry_run=True)
    assert {"files": 1, "saved": 0} == ran.report.counts
    assert [] == snapshots(settings)


def test_the_log_tells_who_changed_what_when(settings: JobSettings) -> None:
    """Created, changed, removed, created again: with owner, size, lines and the first line that differs."""
    file = Path(settings.layout.root, PATH)
    other = Path(settings.layout.root, "prompts/templates/other.md")
    templates(settings)
    other.write_bytes(b"of no concern")
    templates(settings)
    save(settings, b"# triage\nONE\ntwo\n")
    written = file.stat().st_mtime
    templates(settings)
    file.unlink()
    templates(settings)
    save(settings, b"\xff\0")
    templates(settings)
    again, removed, changed, created = log(settings)
    assert [What.CREATED, What.REMOVED, What.CHANGED, What.CREATED] == [
        one.what for one in (again, removed, changed, created)
    ]
    assert (17, 3, 2, 1, "-one", os.getuid()) == (
        changed.bytes, changed.lines, changed.added, changed.removed, changed.first, changed.uid
    )  # fmt: skip
    assert abs(changed.at - written) < 0.001
    assert (13, 2, "+# triage") == (created.bytes, created.lines, created.first)
    assert (2, None, "") == (again.bytes, again.lines, again.first)
    assert created.at <= changed.at <= removed.at <= again.at
    assert changed == in_force([again, removed, changed, created], (changed.at + removed.at) / 2)
    assert None is in_force([again, removed, changed, created], created.at - 1)


def test_times_that_cant_be_true_are_not_believed(settings: JobSettings) -> None:
    """A version that was copied in with an old date counts from the snapshot that has it first."""
    templates(settings)
    save(settings, b"older than the first")
    os.utime(Path(settings.layout.root, PATH), (1e9, 1e9))
    templates(settings)
    newest = log(settings)[0]
    assert newest.at == newest.saved_at


def test_templates_in_directories_have_a_log_too(settings: JobSettings) -> None:
    """So has one that is in a backup only."""
    save(settings, b"one", "prompts/templates/agents/a.md")
    run("backup", settings, now=time.time())
    assert [What.CREATED] == [one.what for one in log(settings, "prompts/templates/agents/a.md")]
    assert [] == log(settings, "prompts/templates/none.md")
