"""Which contexts are healed, and with what: decisions on plain values."""

from dataclasses import replace
from typing import Any

import pytest

from symbiont_datad.formats.context import Damage, Document, Form, Verdict
from symbiont_datad.formats.state_name import name_of
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.healing import (
    Case,
    Judged,
    Source,
    Version,
    cases,
    choose,
    made_at,
    mode_in_force,
    ways_of_another_version,
)  # fmt: skip
from symbiont_datad.jobs.state_files import StateFile
from symbiont_datad.retention.backups import Backup

AGENTS = "state/agents"
GOOD = Verdict(None, "", Form.GZIP, 1000.0)
CUT = Verdict(Damage.TRUNCATED, "it ends in the middle")
EXTENSION = Verdict(Damage.OTHER_EXTENSION, "plain JSON", Form.JSON, 1000.0)


def entry(name: str, at: float) -> Entry:
    """A file among the contexts, written at a time."""
    return Entry(f"{AGENTS}/{name}", 0o100644, 10, int(at * 1e9), 0, 1, 1, 0, 0)


def file(name: str, at: float = 1000.0) -> StateFile:
    """A context."""
    found = name_of(name)
    assert found is not None
    return StateFile(entry(name, at), Document.CONTEXT, found.gzip, found.sealed)


def backup(name: str, at: float = 0.0) -> Backup:
    """A backup that was written when its name says, or at another time."""
    found = name_of(name)
    assert found is not None
    return Backup(found.agent, found.seconds, entry(name, at or found.seconds))


def found(mode: bool | None, **verdicts: Verdict) -> list[tuple[str, Any, Any, Any]]:
    """The cases for contexts, `gz` for agent a's compressed one and `plain` for the other: target, there, other, own.

    Each as the name of the argument that stands for it.
    """
    names = {"gz": "a.json.gz", "plain": "a.json", "sealed": "a.json.gz.age"}
    files = {key: file(names[key]) for key in verdicts}
    word = {files[key].path: key for key in verdicts}
    by_path = {files[key].path: verdict for key, verdict in verdicts.items()}

    def key_of(one: Judged | None) -> str | None:
        return word[one.file.path] if one is not None else None

    return [
        (case.target.removeprefix(f"{AGENTS}/"), key_of(case.there), key_of(case.other), key_of(case.own))
        for case in cases(files.values(), by_path, AGENTS, mode)
    ]


def later(verdict: Verdict) -> Verdict:
    """The same, of content that was changed later."""
    return Verdict(verdict.kind, verdict.detail, verdict.form, verdict.written_at + 1)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param({"gz": GOOD}, [], id="all well"),
        pytest.param({"gz": CUT}, [("a.json.gz", "gz", None, None)], id="damaged"),
        pytest.param({"gz": EXTENSION}, [("a.json.gz", "gz", None, "gz")], id="its own content in the wrong form"),
        pytest.param({"plain": GOOD}, [("a.json.gz", None, "plain", "plain")], id="in the other mode"),
        pytest.param({"plain": EXTENSION}, [("a.json.gz", None, "plain", "plain")], id="wrong in two ways"),
        pytest.param({"plain": CUT}, [("a.json.gz", None, "plain", None)], id="damaged in the other mode"),
        pytest.param({"gz": GOOD, "plain": GOOD}, [("a.json.gz", "gz", "plain", "gz")], id="both, the same age"),
        pytest.param({"gz": later(GOOD), "plain": GOOD}, [("a.json.gz", "gz", "plain", "gz")], id="the loaded newer"),
        pytest.param(
            {"gz": GOOD, "plain": later(GOOD)}, [("a.json.gz", "gz", "plain", "plain")], id="the other is newer"
        ),
        pytest.param({"gz": CUT, "plain": GOOD}, [("a.json.gz", "gz", "plain", "plain")], id="the other is whole"),
        pytest.param({"gz": GOOD, "plain": CUT}, [("a.json.gz", "gz", "plain", "gz")], id="the other is damaged"),
        pytest.param({"gz": CUT, "plain": CUT}, [("a.json.gz", "gz", "plain", None)], id="both damaged"),
        pytest.param({"gz": GOOD, "sealed": CUT}, [("a.json.gz.age", "sealed", None, None)], id="sealed stays sealed"),
        pytest.param({"gz": Verdict(Damage.TOO_LARGE)}, [], id="not judged"),
        pytest.param({"gz": Verdict(Damage.OTHER_SCHEMA)}, [], id="of another version"),
    ],
)
def test_cases_of_an_agent(verdicts: dict[str, Verdict], expected: list[Any]) -> None:
    """With compression on the state belongs into `.json.gz`, whatever lies where."""
    assert expected == found(True, **verdicts)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        pytest.param({"gz": EXTENSION}, [], id="wrong extension"),
        pytest.param({"plain": GOOD}, [], id="plain"),
        pytest.param({"gz": GOOD, "plain": later(GOOD)}, [], id="both"),
        pytest.param({"gz": CUT}, [("a.json.gz", "gz", None, None)], id="damaged"),
        pytest.param({"gz": CUT, "plain": GOOD}, [("a.json.gz", "gz", None, "plain")], id="the other is whole"),
    ],
)
def test_without_a_known_mode_nothing_is_converted(verdicts: dict[str, Verdict], expected: list[Any]) -> None:
    """Damage is healed in the form that the file's own name promises; nothing else is touched."""
    assert expected == found(None, **verdicts)


def test_an_agent_waits_for_all_its_files() -> None:
    """While one of an agent's files is being written, nothing is done about the other."""
    both = [file("a.json.gz"), file("a.json"), file("b.json.gz")]
    verdicts = {both[0].path: CUT, both[2].path: CUT}
    assert [both[2].path] == [case.target for case in cases(both, verdicts, AGENTS, True)]


@pytest.mark.parametrize(
    ("setting", "contexts", "backups", "expected"),
    [
        pytest.param("detect", {"a.json.gz": 5, "b.json.gz": 9, "c.json": 8}, [], True, id="most, and the newest"),
        pytest.param("detect", {"a.json": 5, "b.json": 9, "c.json.gz": 9}, [], False, id="the newest of both"),
        pytest.param("detect", {"a.json.gz": 5, "b.json.gz": 7, "c.json": 8}, [], None, id="the newest is another"),
        pytest.param(
            "detect", {"a.json.gz": 5, "b.json.gz": 7, "c.json": 8}, ["a.json.backup.9.json"], True, id="saved later"
        ),
        pytest.param(
            "detect", {"a.json.gz": 5, "b.json.gz": 7, "c.json": 6}, ["c.backup.9.json"], None, id="saved in the other"
        ),
        pytest.param("detect", {"a.json.gz": 5, "b.json": 5}, [], None, id="a tie"),
        pytest.param("detect", {}, [], None, id="nothing"),
        pytest.param("detect", {"a.json.gz.age": 9, "b.json": 5}, [], False, id="sealed ones say nothing"),
        pytest.param("on", {"a.json": 5, "b.json": 9}, [], True, id="set to on"),
        pytest.param("off", {"a.json.gz": 5}, [], False, id="set to off"),
    ],
)
def test_mode_in_force(setting: str, contexts: dict[str, float], backups: list[str], expected: bool | None) -> None:
    """The majority counts only if the newest file is of its mode: a change of the mode leaves the old ones behind."""
    grouped: dict[str, list[Backup]] = {}
    for name in backups:
        grouped.setdefault(name[0], []).append(backup(name))
    assert expected == mode_in_force(setting, [file(name, at) for name, at in contexts.items()], grouped)


def test_absurd_time_in_a_backups_name_tells_nothing() -> None:
    """A backup is not newer than its file."""
    odd = {"c": [backup("c.backup.99999999999.json", at=5)]}
    contexts = [file("a.json.gz", 6), file("b.json.gz", 7), file("c.json", 5)]
    assert mode_in_force("detect", contexts, odd) is True


def a_case(**files: Judged | None) -> Case:
    """A case of agent a."""
    there = Judged(file("a.json.gz"), CUT)
    return Case("a", f"{AGENTS}/a.json.gz", True, False, **{"there": there, **files})


def version(source: Source, seen_at: float, written_at: float = 0.0) -> Version:
    """A version."""
    return Version(source, f"{source}", seen_at, written_at)


def test_the_version_that_was_in_place_last_wins() -> None:
    """A snapshot that is newer than the newest backup, or the other way round, whatever they say themselves."""
    older, newer = version(Source.BACKUP, 100, 99), version(Source.SNAPSHOT, 200, 50)
    assert newer == choose(a_case(), [older, newer])
    assert newer == choose(a_case(), [newer, older])
    late = version(Source.BACKUP, 300, 10)
    assert late == choose(a_case(), [newer, late])
    assert choose(a_case(), []) is None


def test_what_claims_to_be_younger_than_the_damage_comes_last() -> None:
    """The clock was ahead when it was made: what was made since it was set back bears earlier times."""
    ahead, since = version(Source.SNAPSHOT, 5000, 50), version(Source.BACKUP, 999)
    ahead = replace(ahead, path=f"{AGENTS}/a.json.gz")
    assert since == choose(a_case(), [ahead, since])
    assert ahead == choose(a_case(), [ahead])
    other_mode = replace(ahead, path=f"{AGENTS}/a.json")
    assert other_mode == choose(a_case(), [other_mode, since])
    assert ahead == choose(a_case(there=None, other=Judged(file("a.json"), CUT)), [ahead, since])


def test_the_file_in_the_other_mode_is_compared_by_what_it_says() -> None:
    """It wins if its own time is not older than that of the best version of the past."""
    other = Judged(file("a.json", at=500), Verdict(None, "", Form.JSON, 150.0))
    case = a_case(other=other, own=other)
    assert Source.OTHER_MODE == getattr(choose(case, [version(Source.SNAPSHOT, 200, 150)]), "source", None)
    assert Source.SNAPSHOT == getattr(choose(case, [version(Source.SNAPSHOT, 200, 151)]), "source", None)
    assert Source.OTHER_MODE == getattr(choose(case, []), "source", None)


def test_a_versions_time_is_never_later_than_it_was_seen() -> None:
    """An agent with a clock that is ahead does not make its state newer than it can be."""
    assert 100 == version(Source.BACKUP, 100, 10**9).at
    assert 90 == version(Source.BACKUP, 100, 90).at
    assert 100 == version(Source.BACKUP, 100).at


def test_what_is_amiss_in_the_same_way_elsewhere_is_another_version() -> None:
    """Two contexts without the same field, or one whose backup has none either: so the runtime writes them now."""
    missing = Verdict(Damage.MISSING_FIELDS, "Object missing required field `retention_policy`")
    other = Verdict(Damage.MISSING_FIELDS, "Object missing required field `memory`")
    a, b, c, d = (Judged(file(f"{name}.json.gz"), missing) for name in "abcd")
    odd, cut = Judged(file("odd.json.gz"), other), Judged(file("cut.json.gz"), CUT)
    all_of_them = {one.file.path for one in (a, b, c, d, odd, cut)}
    assert {a.file.path, b.file.path} == ways_of_another_version([a, b, odd, cut], all_of_them, {})
    assert set() == ways_of_another_version([a, odd, cut], all_of_them, {"odd": missing, "cut": missing})
    assert {a.file.path} == ways_of_another_version([a, odd], all_of_them, {"a": missing})
    assert set() == ways_of_another_version([a, b], {a.file.path}, {})


@pytest.mark.parametrize(("written", "expected"), [(100.75, 100.75), (100.0, 100.0), (99.5, 99.5), (250.0, 100.0)])
def test_when_a_backup_was_made(written: float, expected: float) -> None:
    """Its name has whole seconds: where the file was written in that second it tells more, and else the earlier counts.

    A snapshot of the same second may be older, and its state with it.
    """
    made = backup("a.json.backup.100.json", written)
    assert expected == made_at(made)
