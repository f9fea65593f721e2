"""`service install`, `uninstall`, `print` and `status`: the daemon as a service of this machine."""

import difflib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import Invocation, invocation
from symbiont_datad.errors import DatadError, ExitCode, SettingsError
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.service.install import Change, State
    from symbiont_datad.service.target import Account, Kind, Machine, Step, Target

app = typer.Typer(
    name="service",
    help="The daemon as a service: systemd's (the machine's or a user's) or launchd's.",
    no_args_is_help=True,
)

ForUser = Annotated[
    str | None, typer.Option("--for-user", metavar="NAME", help="As root: the service of one user, as that user.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that somebody changed; they are kept as ….old.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_WAIT_S = 60.0


@app.command()
def install(
    ctx: typer.Context,
    for_user: ForUser = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write the service's files, enable it, start it, and wait until the tree is ready. Says first what it will do."""
    from symbiont_datad.service import install as service
    from symbiont_datad.service.stamp import Standing

    target = _target(invocation(ctx), for_user)
    found = service.changes(target)
    changed = [one.path for one in found if one.standing is Standing.CHANGED]
    if not as_json:
        _tell_plan(found, target.start, force)
    if dry_run:
        if as_json:
            show.document(_document(target, found, target.start, dry_run=True))
        return
    if changed and not force:
        raise DatadError(
            f"{_listed(changed)}: changed by somebody, and not replaced; --force does that, and keeps it as ….old"
        )
    _confirm(yes)
    for change in found:
        service.carry_out(change, changed)
    service.run(target.start, _telling(as_json))
    _await_ready(target, as_json)
    if as_json:
        show.document(_document(target, found, target.start, dry_run=False))
        return
    show.line(f"{target.name} runs, and {printable(target.data[0])} is kept")
    for line in _next_steps(target):
        show.line(f"  {line}")


@app.command()
def uninstall(
    ctx: typer.Context,
    for_user: ForUser = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop the service, disable it and remove its files. Data is left alone, and it is said where it is."""
    from symbiont_datad.service import install as service
    from symbiont_datad.service.stamp import Standing

    target = _target(invocation(ctx), for_user, must=False)
    found = service.removals(target)
    changed = [one.path for one in found if one.standing is Standing.CHANGED]
    steps = (*target.stop, *target.cleared)
    if not as_json:
        _tell_plan(found, steps, force)
    if not dry_run:
        _confirm(yes)
        tell = _telling(as_json)
        service.run(target.stop, tell)
        for change in found:
            service.carry_out(change, changed if force else ())
        service.run(target.cleared, tell)
    if as_json:
        show.document(_document(target, found, steps, dry_run=dry_run))
        return
    for path in changed if not force else []:
        show.line(f"{printable(path)} was changed by somebody, and {'stays' if not dry_run else 'would stay'}")
    show.line("Nothing of the data is touched. It is at:")
    for what, path in zip(("the tree", "snapshots", "the daemon's own files"), target.data, strict=True):
        show.line(f"  {printable(path)}  ({what})")


@app.command("print")
def print_(
    ctx: typer.Context,
    for_user: ForUser = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="system, instance, user, agent or daemon, instead of what fits here."),
    ] = None,
    systemd: Annotated[int | None, typer.Option(metavar="VERSION", help="For a machine with this systemd.")] = None,
    as_json: Json = False,
) -> None:
    """Print every file of the service as `install` would write it here. Writes nothing."""
    from dataclasses import replace

    from symbiont_datad.service import survey
    from symbiont_datad.service.target import Kind, target

    if kind is not None and kind not in tuple(Kind):
        raise typer.BadParameter(f"one of {', '.join(Kind)}", param_hint="--kind")
    machine = survey.machine()
    if kind is not None:
        machine = replace(machine, needs=(), program="/opt/symbiont-datad/bin/symbiont-datad")
        machine = replace(machine, systemd=machine.systemd or survey.systemd_version() or 257)
    machine = replace(machine, systemd=systemd) if systemd is not None else machine
    wanted = Kind(kind) if kind is not None else _kind(machine, for_user)
    given = invocation(ctx)
    found = target(machine, survey.wanted(wanted, _account(machine, for_user), given.config, given.root))
    if as_json:
        files = [{"path": file.path, "content": file.content} for file in found.files]
        show.document({"kind": found.kind, "name": found.name, "files": files})
        return
    for file in found.files:
        show.line(f"# {file.path}\n{file.content}")


@app.command()
def status(ctx: typer.Context, for_user: ForUser = None, as_json: Json = False) -> None:
    """Whether the service is installed as it would be now, enabled, running and well. Exit code 3 when it is not."""
    from symbiont_datad.service import install as service
    from symbiont_datad.service.stamp import Standing

    target = _target(invocation(ctx), for_user, must=False)
    state = service.state(target)
    found = service.changes(target)
    why = _health(target)
    well = state.active == "active" and not why
    if as_json:
        document = _document(target, found, (), dry_run=False)
        del document["commands"]
        show.document({**document, "active": state.active, "enabled": state.enabled, "pid": state.pid,
                       "status": state.says, "healthy": not why, "reason": why})  # fmt: skip
    else:
        for line in _screen(target, state, why):
            show.line(line)
        for one in found:
            if one.standing is not Standing.SAME or one.goes:
                show.line(f"  {printable(one.path)}: {_words(one)}")
    if not well:
        raise typer.Exit(int(ExitCode.LEFT))


# What is asked


def _target(given: Invocation, for_user: str | None, *, must: bool = True) -> "Target":
    """The service; with `must` off also when the settings are wrong, which is said."""
    from symbiont_datad.service import survey
    from symbiont_datad.service.target import target

    machine = survey.machine()
    kind = _kind(machine, for_user)
    who = _account(machine, for_user)
    try:
        wanted = survey.wanted(kind, who, given.config, given.root)
    except SettingsError as error:
        if must:
            raise
        for line in str(error).splitlines():
            show.note(f"symbiont-datad: {line}")
        wanted = survey.usual(kind, who)
    return target(machine, wanted)


def _kind(machine: "Machine", for_user: str | None) -> "Kind":
    from symbiont_datad.service.target import kind_for

    return kind_for(machine, for_user is not None)


def _account(machine: "Machine", for_user: str | None) -> "Account":
    from symbiont_datad.service import survey

    if for_user is None:
        return machine.me
    found = survey.account(for_user)
    if found.uid == 0:
        raise DatadError("--for-user root: root has no tree of its own; without the option the machine's is kept")
    return found


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise DatadError("nobody can be asked here: say --yes")
    if not typer.confirm("Go ahead?", err=True):
        raise DatadError("nothing was changed")


# What is told


def _tell_plan(found: "Iterable[Change]", steps: "Iterable[Step]", force: bool) -> None:
    from symbiont_datad.service.stamp import Standing

    for one in found:
        show.line(f"{printable(one.path)}: {_words(one)}")
        if one.standing in (Standing.OURS, Standing.CHANGED) and one.found is not None and not one.goes:
            for line in _difference(one):
                show.line(f"    {printable(line)}")
    for step in steps:
        show.line(f"then: {' '.join(step.words)}")
    show.line("`symbiont-datad service print` shows the files whole")


def _difference(one: "Change") -> list[str]:
    lines = difflib.unified_diff(
        (one.found or "").splitlines(), one.wanted.splitlines(), "there", "new", lineterm="", n=1
    )
    return list(lines)[2:]


def _words(one: "Change") -> str:
    from symbiont_datad.service.stamp import Standing

    if one.goes:
        return "changed by somebody" if one.standing is Standing.CHANGED else "goes"
    return {
        Standing.ABSENT: "new",
        Standing.SAME: "there already",
        Standing.OURS: "brought up to date",
        Standing.CHANGED: "changed by somebody",
    }[one.standing]


def _telling(quiet: bool) -> "Callable[[Step], None]":
    return lambda step: None if quiet else show.note(f"$ {' '.join(step.words)}")


def _document(target: "Target", found: "Iterable[Change]", steps: "Iterable[Step]", *, dry_run: bool) -> show.Json:
    files = [{"path": one.path, "standing": one.standing, "goes": one.goes} for one in found]
    root, repository, own = target.data
    return {"kind": target.kind, "name": target.name, "dry_run": dry_run, "files": files,
            "commands": [list(step.words) for step in steps],
            "root": root, "repository": repository, "daemon_dir": own, "log": target.log}  # fmt: skip


def _screen(target: "Target", state: "State", why: str) -> Iterable[str]:
    process = f", process {state.pid}" if state.pid else ""
    yield f"{target.name}: {state.active}, {state.enabled}{process}"
    yield f"  {printable(target.data[0])}: {why or 'kept'}"
    if state.says:
        yield f"  {state.says}"
    yield f"  its log: {target.log}"


def _listed(paths: list[str]) -> str:
    return ", ".join(map(printable, paths))


def _next_steps(target: "Target") -> Iterable[str]:
    from symbiont_datad.service import install as service
    from symbiont_datad.service.survey import machine
    from symbiont_datad.service.target import Kind

    yield f"its log:      {target.log}"
    yield "how it is:    symbiont-datad service status"
    file = {Kind.SYSTEM: "/etc/symbiont/datad.toml"}.get(target.kind, "~/.symbiont/datad.toml")
    yield f"settings:     {file}; then symbiont-datad service install again, or a reload"
    if target.kind is Kind.USER and not service.lingers(machine().me.name):
        yield "it ends when you log out; to let it run on: loginctl enable-linger"


# Whether it is well


def _health(target: "Target") -> str:
    from symbiont_datad.live import keeper, read_state
    from symbiont_datad.service.probe import Probe, trouble

    own = Path(target.data[2])
    try:
        return trouble(Probe.READY, read_state(own), keeper(own), time.monotonic())
    except OSError as error:
        return f"can't be looked at: {error.strerror or error}"


def _await_ready(target: "Target", quiet: bool) -> None:
    """Wait for the tree. systemd has waited already; launchd does not."""
    deadline = time.monotonic() + _WAIT_S
    while why := _health(target):
        if time.monotonic() > deadline:
            raise DatadError(f"after {_WAIT_S:.0f} s: {why}; see {target.log}")
        time.sleep(0.2)
