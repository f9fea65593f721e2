"""`versions` and `diff`: one file through time."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.progress import watched
from symbiont_datad.errors import DatadError, ExitCode
from symbiont_datad.quantities import format_size
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.fsops.root import Tree
    from symbiont_datad.jobs.history import Content
    from symbiont_datad.restic.find import Version
    from symbiont_datad.restic.repository import Repository

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A file, relative to the data directory or absolute.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_COLORS = {"+": "green", "-": "red", "~": "yellow", "@": "cyan"}


def versions(ctx: typer.Context, path: PathArgument, as_json: Json = False) -> None:
    """The distinct versions of one file in the snapshots, the newest first.

    `*` is what is there now. Exit code 3 when a snapshot could not be looked into.
    """
    from symbiont_datad.jobs.context import Progress
    from symbiont_datad.jobs.history import file_versions
    from symbiont_datad.jobs.repository import told

    repository, tree, path = _opened(ctx, path)
    lost: list[tuple[str, str]] = []
    progress = Progress("versions")
    with told(), watched(progress, False):
        found, current = file_versions(repository, tree, path, lambda *one: lost.append(one), progress)
    if as_json:
        records = [_record(version, number == current) for number, version in enumerate(found)]
        unread = [{"id": name, "reason": reason} for name, reason in lost]
        show.document({"path": printable(path), "versions": records, "unread": unread})
    elif found:
        rows = [_row(version, number == current) for number, version in enumerate(found)]
        for line in show.table([("", "snapshot", "time", "modified", "size", "snapshots"), *rows], right={4, 5}):
            show.line(line)
        if current is None:
            show.line("what is there now is none of these")
    for name, reason in lost:
        show.note(f"symbiont-datad: snapshot {name[:8]}: {printable(reason)}")
    if not found:
        raise DatadError(f"{printable(path)}: is in no snapshot")
    if lost:
        raise typer.Exit(int(ExitCode.LEFT))


def diff(
    ctx: typer.Context,
    path: PathArgument,
    a: Annotated[str, typer.Argument(metavar="A", help="A snapshot: its id, how that begins, or latest.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another one; without it, the file as it is now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How a file differs between two snapshots, or between a snapshot and now.

    JSON is compared value by value (`~` changed, `+` added, `-` removed), text line by line; gzip is opened.
    """
    from symbiont_datad.formats.diff import LARGEST, changes, difference
    from symbiont_datad.jobs.history import live_content
    from symbiont_datad.jobs.repository import told

    repository, tree, path = _opened(ctx, path)
    with told():
        side_a, one = _content(repository, tree, path, a)
        side_b, two = _content(repository, tree, path, b) if b else (_NOW, live_content(tree, path, LARGEST))
    name_a, name_b = side_a.name, side_b.name
    equal = one.data == two.data and one.size == two.size if one.data is not None and two.data is not None else None
    lines: list[str] = []
    if one.data is None or two.data is None:
        lines.append(
            f"{name_a} ({format_size(one.size)}) and {name_b} ({format_size(two.size)}) are too large to compare"
        )
    elif not equal:
        lines += difference(one.data, two.data, name_a, name_b)
    if as_json:
        found = changes(one.data, two.data) if one.data is not None and two.data is not None else None
        show.document(
            {
                "path": printable(path),
                "a": {"snapshot": side_a.id, "time": side_a.time, "bytes": one.size},
                "b": {"snapshot": side_b.id, "time": side_b.time, "bytes": two.size},
                "equal": equal,
                "changes": None if found is None else [change.record() for change in found],
                "lines": lines,
            }
        )
        return
    for line in lines:
        show.line(typer.style(line, fg=_COLORS.get(line[:1])) if show.on_terminal() else line)
    if equal:
        show.line(f"{printable(path)} is the same in {name_a} and {name_b}")


def _opened(ctx: typer.Context, path: str) -> "tuple[Repository, Tree, str]":
    """The repository with its index, the tree (the data directory or a root beside it), and the path relative to it."""
    from symbiont_datad.fsops.root import Tree
    from symbiont_datad.jobs.context import job_settings
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.jobs.snapshots import located

    show.quiet_log()
    settings = job_settings(invocation(ctx).load().settings)
    root, wanted = located(settings.layout.root, settings.vectors.extra_roots, path)
    repository = opened(settings.repository)
    with told():
        repository.need_index()
    return repository, Tree(root), wanted


class _Side(NamedTuple):
    """What is compared: how it is called, its snapshot and when that was made (None: the file as it is now)."""

    name: str
    id: str | None
    time: str | None


_NOW = _Side("now", None, None)


def _content(repository: "Repository", tree: "Tree", path: str, wanted: str) -> "tuple[_Side, Content]":
    from symbiont_datad.formats.diff import LARGEST
    from symbiont_datad.jobs.history import content_of, node_in

    (name, snapshot), node = node_in(repository, tree, path, wanted)
    at = snapshot.at.timestamp()
    side = _Side(f"{name[:8]} {show.short_time(at)}", name, show.moment(at))
    return side, content_of(repository, node, path, LARGEST)


def _record(version: "Version", current: bool) -> show.Json:
    name, at = version.snapshots[0]
    return {
        "snapshot": name,
        "time": show.moment(at.timestamp()),
        "modified": version.node.mtime,
        "type": version.node.type,
        "bytes": version.node.size,
        "current": current,
        "snapshots": [{"id": held, "time": show.moment(when.timestamp())} for held, when in version.snapshots],
    }


def _row(version: "Version", current: bool) -> tuple[str, ...]:
    from symbiont_datad.restic.records import parse_time

    name, at = version.snapshots[0]
    return (
        "*" if current else "",
        name[:8],
        show.short_time(at.timestamp()),
        show.short_time(parse_time(version.node.mtime).timestamp()),
        format_size(version.node.size),
        f"{len(version.snapshots)}",
    )
