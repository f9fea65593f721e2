"""`config show`, `config check`, `config schema`; `config migrate` is in a module of its own."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symbiont_datad.cli import config_migrate
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.show import document as print_document
from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.settings import Leaf, Loaded

app = typer.Typer(name="config", help="Show, check and migrate the settings.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Changed = Annotated[bool, typer.Option("--changed", help="Only settings that some source has set.")]


@app.command()
def show(ctx: typer.Context, changed: Changed = False, as_json: Json = False) -> None:
    """Every setting, its value, and where that came from. Secrets are never shown."""
    from symbiont_datad.settings import leaves

    loaded = invocation(ctx).load()
    found = [leaf for leaf in leaves(loaded.settings) if not changed or loaded.origins[leaf.name] != "default"]
    if as_json:
        print_document({"file": _file(loaded), "settings": _rows(loaded, found)})
    else:
        for line in _listing(loaded, found):
            typer.echo(line)


@app.command()
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Whether the settings can be used. Every problem is one line; the exit code is 2 when there is one."""
    try:
        loaded = invocation(ctx).load()
    except SettingsError as error:
        problems = str(error).splitlines()
        if as_json:
            print_document({"valid": False, "problems": problems})
        else:
            for problem in problems:
                typer.echo(problem)
        raise typer.Exit(int(ExitCode.USAGE)) from None
    if as_json:
        print_document({"valid": True, "problems": []})
    else:
        typer.echo(f"settings are good ({_file(loaded) or 'no file'})")


@app.command()
def schema(as_json: Json = False) -> None:
    """The JSON Schema of datad.toml, for editors. It is JSON with and without `--json`."""
    from symbiont_datad.settings import Settings

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Settings.model_json_schema()
    typer.echo(json.dumps(document | {"title": "datad.toml"}, indent=2))


app.command()(config_migrate.migrate)


def _file(loaded: "Loaded") -> str | None:
    return str(loaded.file) if loaded.file else None


def _rows(loaded: "Loaded", found: "list[Leaf]") -> list[dict[str, Any]]:
    from symbiont_datad.settings import Settings, leaves
    from symbiont_datad.settings_file import plain

    defaults = {leaf.name: plain(leaf.value, leaf.field) for leaf in leaves(Settings())}
    rows = []
    for leaf in found:
        value, origin = plain(leaf.value, leaf.field), loaded.origins[leaf.name]
        # What is derived from the root or $STATE_DIRECTORY is its own default.
        default = value if origin == "default" else defaults.get(leaf.name)
        rows.append({"name": leaf.name, "value": value, "origin": origin, "default": default})
    return rows


def _listing(loaded: "Loaded", found: "list[Leaf]") -> list[str]:
    """Names, values and origins in columns, with an empty line between two sections."""
    from symbiont_datad.settings_file import spelled

    rows = [
        (leaf.path[:-1], leaf.name, printable(spelled(leaf.value, leaf.field)), loaded.origins[leaf.name])
        for leaf in found
    ]
    widest = max((len(name) for _, name, _, _ in rows), default=0)
    values = max((len(value) for _, _, value, _ in rows if len(value) <= 40), default=0)
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for group, name, value, origin in rows:
        if group != section and lines:
            lines.append("")
        section = group
        lines.append(f"{name:<{widest}} = {value:<{values}}  ({printable(origin)})")
    return lines
