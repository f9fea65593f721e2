"""What the pages show is run: Python that a reader copies works as it stands, and so does every command."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import typer

ROOT = Path(__file__).parent.parent
PYTHON_PAGES = ("README.md", "docs/contexts.md")
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
TUTORIAL = "docs/tutorial.md"
PATIENCE_S = 120.0
USAGE: type[Exception] = typer.BadParameter.__bases__[0]
"""What the command line raises for what it does not understand; typer has it from another library, or its own copy."""


def blocks(page: str) -> list[str]:
    """The Python on a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_on_a_page_runs(page: str, tmp_path: Path) -> None:
    """Each block by itself, with a home of its own, and with a warning as an error."""
    found = blocks(page)
    assert found
    for block in found:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            env=environ(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (0, "") == (done.returncode, done.stderr)
    (context,) = (tmp_path / ".symbiont/data/state/agents").glob("*.json.gz")
    assert context.stat().st_size > 0


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    """Each relative link names a file that is there."""
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / page).read_text())
    assert [] == [target for target in targets if not ((ROOT / page).parent / target).exists()]


def test_every_page_is_in_the_index() -> None:
    """docs/README.md names each of the others."""
    index = (ROOT / "docs/README.md").read_text()
    named = set(re.findall(r"\]\(([^)#/]+\.md)", index))
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} == named


# Commands that are named


def typed(page: str) -> Iterator[str]:
    """What follows `symbiont-datad` wherever a page shows it to be typed, in a block or within a line."""
    text = (ROOT / page).read_text()
    for block in re.findall(r"^```(?:console\w*|sh|)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for found in re.finditer(r"(?:^|[$;&|(] *|do |sudo )symbiont-datad( [^;&|<>#)]*)", line):
                yield found[1].partition("  ")[0].strip()
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"`symbiont-datad ([^`<>|;]+)`", text):
        yield " ".join(found[1].split())


COMMANDS = sorted({(page, words) for page in PAGES if page != "docs/commands.md" for words in typed(page)})


def test_pages_show_commands() -> None:
    """The search finds what is there."""
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS}))
def test_commands_on_a_page_exist(page: str) -> None:
    """Each with its options, and with no argument too many: what is typed is understood."""
    assert [] == [(words, why) for where, words in COMMANDS if where == page and (why := refused(words))]


def refused(words: str) -> str:
    """Why the command line does not take these words; empty when it does. Nothing is run."""
    from typer.main import get_command

    from symbiont_datad.cli.app import app

    command: Any = get_command(app)
    # Written for people: alternatives, things left out, and what stands for a value.
    plain = re.sub(r"[\[\]…]| or (?=-)", " ", words).replace("...", " ")
    try:
        left = shlex.split(plain)
    except ValueError as error:
        return str(error)
    try:
        context = command.context_class(command, info_name="symbiont-datad")
        while True:
            parser = command.make_parser(context)
            _, left, _ = parser.parse_args(left)
            if not hasattr(command, "commands") or not left:
                return ""
            if left[0] not in command.commands:
                return f"there is no {left[0]}"
            command = command.commands[left[0]]
            context = command.context_class(command, parent=context, info_name=left[0])
            left = left[1:]
    except USAGE as error:
        return str(error)


@pytest.mark.parametrize("words", ["frobnicate", "check --nope", "config chekc", "--rooot /x check"])
def test_wrong_commands_are_seen(words: str) -> None:
    """A page with one of these would fail."""
    assert refused(words)


# The tutorial


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a page, as it is typed, and the lines that it is said to print. `…` is anything."""

    line: int
    command: str
    printed: tuple[str, ...]
    installs: bool

    @property
    def pattern(self) -> str:
        """What the output has to match, whole."""
        lines = [r"(?:.*\n)*?" if line == "…" else f"{re.escape(line).replace('…', '.*')}\n" for line in self.printed]
        return "".join(lines)


def steps(page: str) -> list[Step]:
    """The commands in the console blocks of a page, in order."""
    found: list[Step] = []
    inside = False
    installs = False
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if line.startswith("```"):
            inside, installs = line.startswith("```console") and not inside, "install" in line
        elif inside and line.startswith("$ "):
            found.append(Step(number, line[2:], (), installs))
        elif inside and (line.startswith("> ") or line == ">"):
            last = found[-1]
            found[-1] = Step(last.line, f"{last.command}\n{line[2:]}", (), last.installs)
        elif inside:
            last = found[-1]
            found[-1] = Step(last.line, last.command, (*last.printed, line), last.installs)
    return found


def test_the_tutorial_is_read() -> None:
    """Commands of one line and of several, with what they print, and the blocks that install."""
    found = steps(TUTORIAL)
    assert len(found) > 30
    assert any("\n" in step.command for step in found)
    assert {"python3 -m venv ~/datad"} < {step.command for step in found if step.installs}
    assert ("the agent is curious",) in {step.printed for step in found}


@pytest.mark.slow
def test_the_tutorial_is_true(tmp_path: Path) -> None:
    """Every command of it, in order, typed into a shell of a new home; each ends well and prints what it should."""
    home = tmp_path / "home"
    home.mkdir()
    with Shell(home) as shell:
        for step in steps(TUTORIAL):
            code, printed = shell.type(step.command)
            where = f"{TUTORIAL}, line {step.line}: {step.command}\n{printed}"
            assert 0 == code, where
            assert re.fullmatch(step.pattern, printed), f"{where}\nis not\n{step.pattern}"


class Shell:
    """bash in a checkout, with a home of its own; what it starts ends with it."""

    def __init__(self, home: Path) -> None:
        self._out = home.parent / "printed"
        self._done = home.parent / "done"
        # No sweep of the daemon's own comes between two steps, however slow the machine is.
        more = {"SYMBIONT_DATAD_AUTO_SAVE_INTERVAL": "1d", "PS1": ""}
        with open(self._out, "wb") as out:
            self._bash = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                env=environ(home) | more,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()

    def type(self, command: str) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        assert self._bash.stdin is not None
        before = self._out.stat().st_size
        self._done.unlink(missing_ok=True)
        self._bash.stdin.write(f"{command}\necho $? >{self._done}.new; mv {self._done}.new {self._done}\n")
        self._bash.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while not self._done.exists():
            assert time.monotonic() < deadline, f"{command}: no end"
            assert self._bash.poll() is None, f"{command}: the shell has ended"
            time.sleep(0.02)
        return int(self._done.read_text()), self._out.read_bytes()[before:].decode()


def environ(home: Path) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_DATAD_")}
    return kept | {"HOME": str(home)}
