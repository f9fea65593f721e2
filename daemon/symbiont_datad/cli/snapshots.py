"""`snapshots`: what is in the repository."""

from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.progress import watched
from symbiont_datad.errors import ExitCode
from symbiont_datad.quantities import format_size
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.restic.records import Snapshot

_WIDEST_HOST = 20


def snapshots(
    ctx: typer.Context,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag; more than one: with all of them.")] = None,
    host: Annotated[str | None, typer.Option(help="Only of this host.")] = None,
    path: Annotated[list[str] | None, typer.Option(help="Only of this path, as the snapshot has it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the snapshots, the newest last. It takes no lock. Exit code 3 when one of them can't be read."""
    from symbiont_datad.jobs.context import Progress, job_settings
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.jobs.snapshots import readable_snapshots
    from symbiont_datad.restic.forget import selected

    show.quiet_log()
    settings = job_settings(invocation(ctx).load().settings).repository
    repository = opened(settings)
    progress = Progress("snapshots")
    with told(), watched(progress, False):
        listed, unread = readable_snapshots(repository, progress)
    found = selected(listed, host=host, tags=tag or (), paths=path or ())
    if as_json:
        document = {"repository": repository.backend.location, "snapshots": [record(*one) for one in found]}
        show.document(document | {"unread": [{"id": name, "reason": reason} for name, reason in unread]})
    else:
        for line in _listing(found):
            show.line(line)
        show.line(f"{len(found):,} snapshots in {printable(repository.backend.location)}")
    for _, reason in unread:
        show.note(f"symbiont-datad: {printable(reason)}")
    if unread:
        raise typer.Exit(int(ExitCode.LEFT))


def record(name: str, snapshot: "Snapshot") -> show.Json:
    """A snapshot as JSON. Sizes in bytes, None where the snapshot says nothing of them."""
    done = snapshot.summary
    return {
        "id": name,
        "short_id": name[:8],
        "time": show.moment(snapshot.at.timestamp()),
        "host": snapshot.hostname,
        "user": snapshot.username,
        "tags": snapshot.tags,
        "paths": snapshot.paths,
        "program": snapshot.program_version,
        "files": done.total_files_processed if done else None,
        "bytes": done.total_bytes_processed if done else None,
        "added_bytes": done.data_added if done else None,
        "stored_bytes": done.data_added_packed if done else None,
    }


def _listing(found: "list[tuple[str, Snapshot]]") -> list[str]:
    rows = [("id", "time", "host", "tags", "files", "size", "added")]
    for name, snapshot in found:
        done = snapshot.summary
        host = printable(snapshot.hostname)
        figures = ("–", "–", "–")
        if done:
            size, added = format_size(done.total_bytes_processed), format_size(done.data_added_packed)
            figures = (f"{done.total_files_processed:,}", size, added)
        rows.append(
            (
                name[:8],
                show.short_time(snapshot.at.timestamp()),
                host if len(host) <= _WIDEST_HOST else f"{host[: _WIDEST_HOST - 1]}…",
                printable(",".join(snapshot.tags)),
                *figures,
            )
        )
    return list(show.table(rows, right={4, 5, 6})) if found else []
