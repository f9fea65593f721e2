"""`templates log`: who changed a prompt template what when."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.events import point_in_time
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import DatadError, ExitCode
from symbiont_datad.quantities import format_size
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.template_log import Change
    from symbiont_datad.layout import Layout

app = typer.Typer(name="templates", help="The prompt templates and their versions.", no_args_is_help=True)

_LONGEST = 60  # characters of a line that are shown in the table


@app.callback()
def group() -> None:
    """The prompt templates and their versions."""


@app.command()
def log(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A file in prompts/templates; its ending may be left out.", show_default=False
        ),
    ],
    at: Annotated[
        str,
        typer.Option("--at", metavar="TIME", help="Only what was in force then: 2026-11-17, or 2d for two days ago."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:  # fmt: skip
    """Who changed a template what when, the newest first: owner, size, lines, the first line that differs.

    `restore SNAPSHOT prompts/templates/NAME` gets a version back, `diff` shows all of a change. Exit code 3 when a
    snapshot could not be looked into.
    """
    from symbiont_datad.jobs.context import job_settings
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.jobs.template_log import in_force, template_log

    show.quiet_log()
    settings = job_settings(invocation(ctx).load().settings)
    when = point_in_time(at, "--at") if at else None
    path = _path(settings.layout, name)
    repository = opened(settings.repository)
    lost: list[tuple[str, str]] = []
    with told():
        repository.need_index()
        changes = template_log(repository, settings.layout.tree, path, lambda one, why: lost.append((one, why)))
    known = bool(changes)
    if when is not None:
        then = in_force(changes, when)
        changes = [then] if then is not None else []
    if as_json:
        unread = [{"id": one, "reason": reason} for one, reason in lost]
        show.document({"path": printable(path), "changes": [_record(one) for one in changes], "unread": unread})
    elif changes:
        head = ("snapshot", "when", "who", "what", "size", "lines", "+", "-", "first line that differs")
        for line in show.table([head, *map(_row, changes)], right={4, 5, 6, 7}):
            show.line(line)
    for one, reason in lost:
        show.note(f"symbiont-datad: snapshot {one[:8]}: {printable(reason)}")
    if not changes:
        raise DatadError(f"{printable(path)}: {'there was none then' if known else 'is in no snapshot'}")
    if lost:
        raise typer.Exit(int(ExitCode.LEFT))


def _path(layout: "Layout", name: str) -> str:
    """The path of a template, relative to the data directory. One that is not there now may be in a snapshot."""
    from symbiont_datad.fsops.root import readable
    from symbiont_datad.jobs.snapshots import relative_to
    from symbiont_datad.layout import Category

    place = layout.path_of(Category.PROMPTS, "templates")
    absolute = f"{layout.root}/{place}"
    if name.startswith(f"{place}/") or os.path.isabs(name):
        path = relative_to(layout.root, name)
    else:
        path = relative_to(layout.root, os.path.join(absolute, name))
    if not path.startswith(f"{place}/"):
        raise DatadError(f"{printable(name)}: is not in {place}")
    folder, _, last = path.rpartition("/")
    try:
        with layout.tree.directory(folder) as fd, readable(".", fd) as listed:
            names = os.listdir(listed)
    except OSError:
        return path
    if last in names:
        return path
    alike = [one for one in names if os.path.splitext(one)[0] == last]
    return f"{folder}/{alike[0]}" if len(alike) == 1 else path


def _record(one: "Change") -> show.Json:
    return {
        "change": one.what,
        "at": show.moment(one.at),
        "snapshot": one.snapshot,
        "saved_at": show.moment(one.saved_at),
        "user": printable(one.user) or None,
        "uid": one.uid if one.uid >= 0 else None,
        "bytes": one.bytes,
        "lines": one.lines,
        "added": one.added,
        "removed": one.removed,
        "first": one.first,
    }


def _row(one: "Change") -> tuple[str, ...]:
    if one.what == "removed":
        return one.snapshot[:8], show.short_time(one.at), "", one.what, "", "", "", "", ""
    first = one.first if len(one.first) <= _LONGEST else f"{one.first[: _LONGEST - 1]}…"
    lines = "–" if one.lines is None else f"{one.lines:,}"
    figures = (format_size(one.bytes), lines, f"{one.added}", f"{one.removed}")
    return one.snapshot[:8], show.short_time(one.at), printable(one.user) or f"{one.uid}", one.what, *figures, first
