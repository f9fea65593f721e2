"""How far a command is: a bar on a terminal, lines of JSON, and nothing where nobody looks."""

import io
import json
import re
import sys
from collections.abc import Callable

import pytest

from symbiont_datad.cli import progress as shown
from symbiont_datad.cli.progress import watched
from symbiont_datad.jobs.context import Progress
from tests.cli.conftest import Datad
from tests.process.running import until


class Stream(io.StringIO):
    """A stream that is a terminal or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it says that it is one."""
        return self._terminal


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[Progress, bool, bool, str], str]:
    """Watches a progress until something matches what is printed, and hands all of it back."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(shown, "_BAR_S", 0.01)
    monkeypatch.setattr(shown, "_LINE_S", 0.01)

    def watch(progress: Progress, terminal: bool, as_json: bool, pattern: str) -> str:
        out, errors = Stream(terminal=False), Stream(terminal)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", errors)
        with watched(progress, as_json):
            if pattern:
                until(lambda: _moved(progress) and re.search(pattern, out.getvalue() + errors.getvalue()))
        return out.getvalue() + errors.getvalue()

    return watch


def _moved(progress: Progress) -> bool:
    """A rate needs two looks at different numbers."""
    progress.bytes += 1
    return True


Said = Callable[[Progress, bool, bool, str], str]


def test_a_bar_on_a_terminal(said: Said) -> None:
    """Phase, bytes of all, rate, files and the time left."""
    pattern = r"check state .*1 MiB of 4 MiB  .*/s  .*12 files  .* left"
    assert said(Progress("check state", 12, 1 << 20, 100, 4 << 20), True, False, pattern)


def test_a_total_that_was_guessed_and_is_passed_is_not_told(said: Said) -> None:
    """Nothing is said of what is left then; before it is."""
    text = said(Progress("backup", 12, 5 << 20, 100, 4 << 20), True, False, r"5 MiB  .*/s  .*12 files")
    assert " of " not in text
    assert " left" not in text


def test_lines_of_json(said: Said) -> None:
    """With the share that is done, and the seconds that remain; nothing on stderr."""
    text = said(Progress("backup", 12, 1 << 20, 100, 4 << 20), True, True, "remaining_s.*\n")
    line = json.loads(text.splitlines()[0])
    assert ("status", "backup", 12, 4 << 20) == (
        line["message_type"], line["phase"], line["files"], line["total_bytes"],
    )  # fmt: skip
    assert 0.24 < line["share_done"] < 0.26
    assert "\x1b" not in text


def test_without_a_total_no_share_is_told(said: Said) -> None:
    """With one of files alone, it goes by those; at the very beginning nothing can be said of what remains."""
    line = json.loads(said(Progress("look", 12), True, True, "look.*\n").splitlines()[0])
    assert set() == {"share_done", "remaining_s", "total_files"} & line.keys()
    line = json.loads(said(Progress("look", 25, 0, 100), True, True, "look.*\n").splitlines()[0])
    assert (0.25, 100) == (line["share_done"], line["total_files"])
    line = json.loads(said(Progress("look", 0, 0, 100), True, True, "look.*\n").splitlines()[0])
    assert (0.0, False) == (line["share_done"], "remaining_s" in line)


def test_each_phase_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the last goes when the next begins; what is over before anybody looked had none to take away."""
    errors = Stream(terminal=True)
    monkeypatch.setattr(sys, "stderr", errors)
    shown._Bar().close()
    assert "" == errors.getvalue()
    bar, progress = shown._Bar(), Progress("look")
    bar(progress)
    progress.begin("bring", 100)
    bar(progress)
    assert bar._bar is not None
    assert ["bring"] == [task.description for task in bar._bar.tasks]
    bar.close()


@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "dumb"])
def test_nothing_where_no_bar_can_be(said: Said, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A pipe and a dumb terminal get none, and no thread looks."""
    monkeypatch.setenv("TERM", "dumb")
    assert "" == said(Progress("backup", 12), terminal, False, "")


@pytest.mark.usefixtures("ample")
def test_piped_commands_print_their_answer_alone(datad: Datad) -> None:
    """No bar, no escape sequence, nothing on stderr."""
    for word in ("init", "sweep", "rotate", "clean", "backup", "verify", "prune", "snapshots", "check"):
        done = datad(word)
        assert (word, 0, "", False) == (word, done.returncode, done.stderr, "\x1b" in done.stdout)
