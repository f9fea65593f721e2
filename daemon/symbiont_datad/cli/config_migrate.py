"""`config migrate`: settings of before the tree, rewritten in the user's own files."""

import difflib
import os
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad import events
from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.migrate import agreed
from symbiont_datad.errors import DatadError, ExitCode, SettingsError
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.migrate.config import NewSettings, OldValue, Rewritten
    from symbiont_datad.migrate.target import Target
    from symbiont_datad.settings import Loaded

_USER_FILE = "~/.symbiont/datad.toml"


def migrate(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Settings files of the runtime, instead of those that are found.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Rewrite settings that name old places, in symbiont.toml and its like; comments and order stay.

    The difference is shown first, what a file was stays beside it as `.bak`, and `migrate --undo` takes it back. What
    the old settings said of persistence comes into datad.toml. What has to be set elsewhere is told.
    """
    from symbiont_datad.migrate.config import further
    from symbiont_datad.migrate.detect import detect, find_mentions, home_of, unmigrated
    from symbiont_datad.migrate.target import target_of

    events.silence()
    given = invocation(ctx)
    loaded = given.load()
    target, directory, home = target_of(loaded.settings), os.getcwd(), home_of(os.environ)
    found, told = _rewritten(files, target, directory, home)
    ours, values = _own_file(given.config, loaded, found)
    todo = [one for one in (*found, ours) if one.changed]
    user = os.path.join(home, ".symbiont") if home else None
    mentions, _ = find_mentions(directory, user, os.environ)
    vectors = os.path.isdir(os.path.join(target.root, target.collections)) and bool(
        os.listdir(os.path.join(target.root, target.collections))
    )
    told += [*values.told, *further(mentions, target, directory, home, vectors=vectors)]
    if todo:
        for source in unmigrated(detect(target, directory, home, os.environ), target):
            told.append(
                f"{printable(source.path)} has not come over: `symbiont-datad migrate` first, which reads these"
            )
    backups: list[str | None] = [None] * len(todo)
    if not as_json:
        for one in todo:
            _show_difference(one)
        for line in told:
            show.line(f"to do: {line}")
        if not todo:
            show.line("nothing to rewrite")
    if todo and not dry_run:
        if not yes and not agreed("write this", as_json):
            raise typer.Exit(int(ExitCode.LEFT))
        backups = _write(todo, target)
    if as_json:
        show.document(_document(todo, backups, told, dry_run))
    elif todo and not dry_run:
        for one, backup in zip(todo, backups, strict=True):
            show.line(f"wrote {printable(one.path)}" + (f"; what it was is {printable(backup)}" if backup else ""))


def _rewritten(
    files: Sequence[Path] | None, target: "Target", directory: str, home: str | None
) -> "tuple[list[Rewritten], list[str]]":
    from symbiont_datad.migrate.config import rewritten
    from symbiont_datad.migrate.legacy import SETTINGS_FILES

    bases = [directory, *([os.path.join(home, ".symbiont")] if home else [])]
    looked = [os.path.join(base, name) for base in dict.fromkeys(bases) for name in SETTINGS_FILES]
    paths = [os.path.abspath(os.path.expanduser(file)) for file in files] if files else looked
    found, told = [], []
    for path in paths:
        try:
            text = Path(path).read_bytes().decode("utf-8")
            found.append(rewritten(path, text, target, directory, home))
        except FileNotFoundError:
            if files:
                raise DatadError(f"{printable(path)}: there is no such file") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            if files:
                raise SettingsError(f"{printable(path)}: can't be rewritten: {printable(why)}") from None
            told.append(f"{printable(path)}: can't be read, so it stays: {printable(why)}")
    return found, told


def _own_file(config: Path | None, loaded: "Loaded", found: "Sequence[Rewritten]") -> "tuple[Rewritten, NewSettings]":
    """datad.toml with the old values of persistence. Raises SettingsError when it would be wrong then."""
    from symbiont_datad.migrate.config import old_values, settings_of, with_settings
    from symbiont_datad.migrate.legacy import NEW_PERSISTENCE, OLD_PERSISTENCE

    path = Path(os.path.abspath(os.path.expanduser(loaded.file or config or _USER_FILE)))
    text = path.read_bytes().decode("utf-8") if path.exists() else None
    olds: list[OldValue] = []
    for one in found:
        olds += old_values(one.path, tomllib.loads(one.after))
    names = (*OLD_PERSISTENCE, *NEW_PERSISTENCE)
    in_force = {name: getattr(loaded.settings, name) for name in names}
    encryption = loaded.settings.encryption
    has_key = encryption.key is not None or encryption.key_file.exists()
    values = settings_of(olds, in_force, tomllib.loads(text or ""), has_key=has_key)
    ours = with_settings(str(path), text, values.values)
    if ours.changed:
        _refuse_wrong(ours)
    return ours, values


def _refuse_wrong(ours: "Rewritten") -> None:
    from symbiont_datad.settings import load

    with tempfile.TemporaryDirectory(prefix="datad-") as folder:
        trial = Path(folder, "datad.toml")
        trial.write_text(ours.after, encoding="utf-8")
        try:
            load(trial)
        except SettingsError as error:
            text = str(error).replace(str(trial), ours.path)
            raise SettingsError(f"the old settings don't fit into {ours.path}; nothing was written\n{text}") from None


def _write(todo: "Sequence[Rewritten]", target: "Target") -> list[str | None]:
    from symbiont_datad.migrate.config import write_rewritten
    from symbiont_datad.migrate.migration import alone, open_journal

    with alone(target), open_journal(target) as journal:
        return write_rewritten(todo, journal, time.time())


def _show_difference(one: "Rewritten") -> None:
    """Only the lines that change: those around may hold a token."""
    before, after = (one.before or "").splitlines(), one.after.splitlines()
    name = printable(one.path)
    for line in difflib.unified_diff(before, after, name, name, lineterm="", n=0):
        show.line(printable(line))


def _document(
    todo: "Sequence[Rewritten]", backups: Sequence[str | None], told: Sequence[str], dry_run: bool
) -> show.Json:
    return {
        "dry_run": dry_run,
        "files": [
            {
                "path": printable(one.path),
                "backup": printable(backup) if backup is not None else None,
                "new": one.before is None,
                "changes": [
                    {"name": change.name, "before": change.before or None, "after": change.after}
                    for change in one.changes
                ],
            }
            for one, backup in zip(todo, backups, strict=True)
        ],
        "to_do": list(told),
    }
