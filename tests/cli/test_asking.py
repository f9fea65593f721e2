"""Questions, answered at a terminal."""

import os
import pty
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Datad, Shelf
from tests.migrate.making import HOUR, NOW, Home, agent, context, write
from tests.process.running import COMMAND

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Terminal:
    """Types commands in a process whose standard input is a terminal."""

    at: Path
    inside: int
    outside: int

    def type(self, *words: str | Path, answers: dict[str, str]) -> tuple[int, str]:
        """Give each answer when its question was asked, in their order; the exit code, and all that was said."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_")}
        with subprocess.Popen(
            [*COMMAND, *words], stdin=self.inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.at,
            env={**environ, "HOME": str(self.at.parent)}, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            said = ""
            for question, answer in answers.items():
                while question not in said.rpartition("\n")[2]:
                    more = os.read(process.stdout.fileno(), 4096)
                    assert more, f"never asked {question!r}: {said}"
                    said += more.decode()
                said += "\n"
                os.write(self.outside, f"{answer}\n".encode())
            said += process.stdout.read().decode()
            return process.wait(60), said


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user's home, with an old place in a project from which commands are typed."""
    home = Home(tmp_path / "user")
    write(home.old / f"{agent(1)}.json", context("a"), NOW - HOUR)
    return home


@pytest.fixture
def terminal(home: Home) -> Iterator[Terminal]:
    """One in the project."""
    outside, inside = pty.openpty()
    yield Terminal(home.base / "project", inside, outside)
    os.close(outside)
    os.close(inside)


def test_a_migration_is_agreed_to(terminal: Terminal, home: Home) -> None:
    """Its beginning and its end; who says no has changed nothing."""
    assert 3 == terminal.type("migrate", answers={"Bring it over? [y/N]: ": "n"})[0]
    assert not home.root.exists()
    code, said = terminal.type("migrate", answers={"Bring it over? [y/N]: ": "y"})
    assert (0, True) == (code, "brought 1 files" in said)
    assert 3 == terminal.type("migrate", "--finish", "--quarantine", answers={"End the migration? [y/N]: ": ""})[0]
    assert home.old.is_dir()
    assert 0 == terminal.type("migrate", "--finish", "--quarantine", answers={"End the migration? [y/N]: ": "y"})[0]
    assert not home.old.exists()


def test_a_password_is_typed_twice(terminal: Terminal, datad: Datad, shelf: Shelf) -> None:
    """It is not shown; what differs is asked for again. The repository opens with it."""
    shelf.make()
    answers = {"new password: ": "one password", "Repeat for confirmation: ": "one password"}
    code, said = terminal.type("repository", "key", "add", answers=answers)
    assert (0, False) == (code, "one password" in said)
    assert 2 == len(datad("repository", "key", "list", "--json").document["keys"])
    Shelf(shelf.path, "one password").open()
