"""The doctor when something is wrong with it, or with where it runs."""

from pathlib import Path

import pytest

from symbiont_datad.doctor import bundle, journal, program
from symbiont_datad.doctor.examination import _guarded
from symbiont_datad.doctor.program import Program
from symbiont_datad.doctor.scrub import scrub_for
from symbiont_datad.doctor.seen import Seen


def test_a_probe_that_fails_is_told_and_hinders_no_other() -> None:
    """Who is ill in a way that was not thought of needs the rest all the more."""

    def failing() -> Seen:
        raise ZeroDivisionError("odd")

    found = _guarded("clock", failing)
    assert ("clock", ["unexamined"]) == (found.probe, [one.kind for one in found.findings])
    assert "ZeroDivisionError('odd')" in found.findings[0].detail


def test_names_that_can_not_be_told_and_libraries_that_are_missing() -> None:
    """Each with what to do."""
    good = program.look()
    assert () == program.judge(good).findings
    values = {name: getattr(good, name) for name in Program.__slots__}
    found = program.judge(Program(**{**values, "encoding": "ascii", "libraries": {"nothing-of-that-name": None}}))
    assert ["library_missing", "encoding"] == [one.kind for one in found.findings]
    assert all(one.detail and one.remedy for one in found.findings)
    assert program._version("nothing-of-that-name") is None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, []),
        ("printf '\\377\\n'", []),
        ("echo no JSON; echo '[1]'; echo '{\"MESSAGE\": \"m\", \"PRIORITY\": \"6\", \"SYMBIONT_PATH\": \"state\"}'",
         [{"at_us": None, "priority": "6", "message": "m", "path": "state"}]),
    ],
)  # fmt: skip
def test_lines_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, expected: list[dict[str, str | None]]
) -> None:
    """Nothing where there is no journal, or where it tells no text; what is no entry of it is passed over."""
    if script is not None:
        command = tmp_path / "journalctl"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script is not None else str(tmp_path))
    assert expected == list(journal.last_lines(5))


def test_names_of_people_are_known_by_their_homes() -> None:
    """Of the tree as well as of the environment; root is nobody's name."""
    assert {"ada", "bob"} <= set(bundle._people({"USER": "bob", "LOGNAME": "root"}, "/home/ada/.symbiont/data"))
    assert "root" not in set(bundle._people({"USER": "root"}, "/root/.symbiont/data", "/srv/data"))


@pytest.mark.parametrize(("path", "kept"), [("state/agents/a.json", False), ("/var/lib/x", True), (None, True)])
def test_a_line_of_the_log_names_no_file_of_the_tree(path: str | None, kept: bool) -> None:
    """What an absolute path says is scrubbed like any text."""
    scrub = scrub_for(b"key", [], ["a.json"], {"state", "agents"}, {})
    line = bundle._line({"message": f"did something to {path}", "path": path, "job": "sweep"}, scrub)
    assert (kept, "sweep") == (line["path"] == path, line["job"])
    assert "a.json" not in line["message"]
