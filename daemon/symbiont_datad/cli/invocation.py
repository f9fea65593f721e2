"""What was typed before the command."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from symbiont_datad.cli.words import Words

if TYPE_CHECKING:
    from symbiont_datad.settings import Loaded


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options of `symbiont-datad [--config FILE] [--root DIR] COMMAND`; None where one was not given."""

    config: Path | None = None
    root: Path | None = None

    def load(self) -> "Loaded":
        """The settings, with `--root` before all other sources. Raises SettingsError."""
        import gc

        from symbiont_datad.settings import load

        overrides: dict[str, object] = {}
        if self.root is not None:
            given = str(self.root)
            # `--root "$UNSET"` arrives as `.`, and must not make the tree of the working directory: it stays relative,
            # and is refused.
            keep = given == "." or given.startswith("~")
            overrides["root_data_dir"] = given if keep else os.path.abspath(given)
        try:
            return load(self.config, overrides)
        finally:
            gc.enable()  # see `main`

    def places(self) -> tuple[Path, Path]:
        """The data directory and the daemon's own, without the settings' model where that is not needed: it takes
        longer than all else that a command does which only looks. Raises SettingsError.
        """
        import gc

        from symbiont_datad.settings_places import Unsure, root_and_daemon_dir

        try:
            return root_and_daemon_dir(self.config, Words(self.config, self.root).whole_root, os.environ)
        except Unsure:
            settings = self.load().settings
            return settings.root_data_dir, settings.daemon_dir
        finally:
            gc.enable()  # see `main`


def invocation(ctx: typer.Context) -> Invocation:
    """What was typed before the command that has this context."""
    return ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
