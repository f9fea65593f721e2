"""What is typed before a command, for those who need to know before the command line is built: that takes 0.1 s."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Words:
    """Options before the command, the command (or ""), and what comes after it."""

    config: Path | None = None
    root: Path | None = None
    command: str = ""
    rest: list[str] = field(default_factory=list)

    @property
    def whole_root(self) -> Path | None:
        """`--root` as an absolute path. One with a `~` stays as it is: only the settings' model can tell."""
        root = self.root
        return (
            Path(os.path.abspath(root)) if root is not None and root.parts and not str(root).startswith("~") else root
        )


def words_of(typed: Sequence[str]) -> Words:
    """What `[--config FILE] [--root DIR] COMMAND …` says; no command when it is typed in any other way."""
    found = Words()
    rest = list(typed)
    while len(rest) > 2 and rest[0] in ("--config", "--root") and not rest[1].startswith("-"):
        setattr(found, rest[0].removeprefix("--"), Path(rest[1]))
        del rest[:2]
    if rest and not rest[0].startswith("-"):
        found.command, found.rest = rest[0], rest[1:]
    return found
