"""`repository init`, `unlock`, `key list`, `key add` and `key remove`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import DatadError, NoRepository, SettingsError, WrongPassword
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.context import RepositorySettings
    from symbiont_datad.restic.repository import Repository

app = typer.Typer(name="repository", help="The snapshot repository, its locks and keys.", no_args_is_help=True)
keys = typer.Typer(name="key", help="The passwords that open the repository.", no_args_is_help=True)
app.add_typer(keys)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="Open the repository with the password in this file."),
]
NewPasswordFile = Annotated[
    Path | None, typer.Option("--new-password-file", metavar="FILE", help="The file that holds the new password.")
]


@app.command()
def init(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the repository. One that is there is never touched. (A backup makes the first one by itself.)"""
    from symbiont_datad.jobs.repository import made, opened, place

    settings = _settings(ctx)
    location = place(settings).location
    if dry_run:
        try:
            opened(settings)
        except NoRepository:
            pass
        else:
            raise DatadError(f"{printable(location)}: there is a repository already")
        name = None
    else:
        name = made(settings).config.id
    if as_json:
        show.document({"repository": location, "dry_run": dry_run, "id": name})
    else:
        show.line(f"would make a repository in {printable(location)}" if dry_run else f"made {printable(location)}")


@app.command()
def unlock(
    ctx: typer.Context,
    every: Annotated[
        bool, typer.Option("--all", help="Every lock, not only those whose holder is gone. Who works then loses it.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove the locks that were left behind by something that is gone."""
    import time

    from symbiont_datad.jobs.repository import identity, opened, told
    from symbiont_datad.restic.lock import is_stale
    from symbiont_datad.restic.lock import unlock as remove_locks

    repository = opened(_settings(ctx))
    with told():
        locks = list(repository.lock_files())
        me, now = identity(), time.time()
        doomed = [name for name, lock in locks if every or (lock is not None and is_stale(lock, me, now))]
        removed = len(doomed) if dry_run else remove_locks(repository, me, all=every, now=now)
    left = len(locks) - removed
    if as_json:
        show.document({"dry_run": dry_run, "removed": removed, "left": left})
        return
    if not locks:
        show.line("there is no lock")
        return
    show.line(f"{'would remove' if dry_run else 'removed'} {removed} of {len(locks)} locks")
    if left and not every:
        show.line("who holds the others is alive, or may be; --all removes them too")


@keys.command("list")
def list_keys(ctx: typer.Context, as_json: Json = False) -> None:
    """The keys of the repository; `*` is the one that the settings' password opens."""
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.restic.records import parse_time

    repository = opened(_settings(ctx))
    with told():
        entries = repository.keys()
    found = [(entry, parse_time(entry.file.created).timestamp()) for entry in entries]
    if as_json:
        records = [
            {
                "id": entry.name,
                "current": entry.current,
                "user": entry.file.username,
                "host": entry.file.hostname,
                "created": show.moment(created),
            }
            for entry, created in found
        ]
        show.document({"repository": repository.backend.location, "keys": records})
        return
    rows = [
        ("*" if entry.current else "", entry.name[:8], printable(entry.file.username), printable(entry.file.hostname),
         show.short_time(created))
        for entry, created in found
    ]  # fmt: skip
    for line in show.table([("", "id", "user", "host", "created"), *rows]):
        show.line(line)


@keys.command("add")
def add_key(
    ctx: typer.Context,
    new_password_file: NewPasswordFile = None,
    password_file: PasswordFile = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let one more password open the repository. Nothing is stored again.

    The new one is in --new-password-file, or asked for on a terminal. Where the settings' own password does not open
    the repository (encryption was turned on or off since it was made), it is the settings' one that is added.
    """
    from symbiont_datad.jobs.repository import identity, locked, told

    settings = _settings(ctx)
    repository, by_settings = _opened_somehow(settings, password_file)
    password = _new_password(settings, new_password_file, by_settings)
    name = None
    if not dry_run:
        import time

        with told(), locked(repository) as lock:
            lock.check()
            name = repository.add_key(password, identity(), time.time())
    if as_json:
        show.document({"dry_run": dry_run, "id": name})
    else:
        show.line("would add a key" if name is None else f"added key {name[:8]}")


@keys.command("remove")
def remove_key(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or how it begins; see `key list`.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a password's right to open the repository. The one in use can't be removed, so one always remains.

    Who has a copy of the repository from before still opens that copy with it.
    """
    from symbiont_datad.jobs.repository import locked, opened, told

    repository = opened(_settings(ctx))
    with told():
        entries = repository.keys()
        names = [entry.name for entry in entries if entry.name.startswith(key)]
        if len(names) != 1 or not key:
            found = "no key" if not names else f"{len(names)} keys"
            raise DatadError(f"{found} of the repository begin{'s' if not names else ''} with {printable(key)!r}")
        if names[0] == repository.key_name:
            raise DatadError(
                f"key {names[0][:8]} is the one that the settings open the repository with, and is not removed; "
                "add another one, and set that, first"
            )
        if not dry_run:
            with locked(repository, exclusive=True) as lock:
                lock.check()
                repository.remove_key(names[0])
    if as_json:
        show.document({"dry_run": dry_run, "id": names[0]})
    else:
        show.line(f"{'would remove' if dry_run else 'removed'} key {names[0][:8]}")


def _settings(ctx: typer.Context) -> "RepositorySettings":
    from symbiont_datad.jobs.context import job_settings

    show.quiet_log()
    return job_settings(invocation(ctx).load().settings).repository


def _opened_somehow(settings: "RepositorySettings", password_file: Path | None) -> "tuple[Repository, bool]":
    """The repository, and whether the settings' password opened it.

    Else it is the password in the given file; without one the empty password, or the key that encryption would use.
    """
    from symbiont_datad.jobs.repository import opened, place, told
    from symbiont_datad.jobs.secrets import identity_in, password_in
    from symbiont_datad.restic.repository import open_repository

    def open_with(password: str) -> "Repository":
        with told():
            return open_repository(place(settings), password, level=settings.level)

    if password_file is not None:
        given = password_in(_absolute(password_file), f"--password-file {printable(str(password_file))}")
        return open_with(given), False
    try:
        return opened(settings), True
    except WrongPassword as wrong:
        for other in (_no_password, lambda: identity_in(settings.secrets.key_file, "the key file")):
            try:
                return open_with(other()), False
            except (WrongPassword, SettingsError):
                continue
        raise WrongPassword(f"{str(wrong).partition(';')[0]}; give one that does with --password-file") from None


def _no_password() -> str:
    return ""


def _new_password(settings: "RepositorySettings", file: Path | None, by_settings: bool) -> str:
    from symbiont_datad.jobs.secrets import password_in, repository_password

    if file is not None:
        return password_in(_absolute(file), f"--new-password-file {printable(str(file))}")
    if not by_settings:
        return repository_password(settings.secrets)
    if not sys.stdin.isatty():
        raise SettingsError("which password should be added? --new-password-file FILE")
    answer = typer.prompt("new password", hide_input=True, confirmation_prompt=True, err=True)
    return str(answer)


def _absolute(file: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(file)))
