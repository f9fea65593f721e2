"""What installing the service means on a machine: which files, which commands, in which order. Pure.

`Machine` is what was seen of it, `Wanted` what the user and the settings ask for, `Target` the answer.
"""

import plistlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from symbiont_datad.errors import DatadError
from symbiont_datad.report import printable
from symbiont_datad.service import unit
from symbiont_datad.service.shipped import shipped
from symbiont_datad.service.stamp import stamped
from symbiont_datad.service.unit import Places

UNIT = "symbiont-datad.service"
LABEL = "ai.symbiont.datad"
STATE = "/var/lib/symbiont"
"""The state directory of the machine's own service."""

_PRIVATE = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
"""What a sandboxed service of the machine doesn't see."""


class Kind(StrEnum):
    """The services there are."""

    SYSTEM = "system"
    """systemd, one for the machine, as a user of its own."""
    INSTANCE = "instance"
    """systemd, of the machine, one for each user that is kept."""
    USER = "user"
    """systemd, a user's own."""
    AGENT = "agent"
    """launchd, a user's own."""
    DAEMON = "daemon"
    """launchd, of the machine, for one user."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine."""

    name: str
    uid: int
    home: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What was seen of the machine.

    `me` runs the command. `systemd` is its version, None where it does not run. `program` is our own absolute path,
    `needs` are the real paths that have to be readable for it to start.
    """

    macos: bool
    me: Account
    systemd: int | None
    program: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: the kind, and what the settings of that service say.

    `account`: for whom (INSTANCE, DAEMON), or who asks. `network` and `loopback`: what it has to reach. `places`: see
    there; `missing` of them have to be made. `data`: root, repository, daemon's own directory, which are told of.
    """

    kind: Kind
    account: Account
    places: Places = field(default_factory=Places)
    network: bool = False
    loopback: bool = False
    missing: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """A file to write, mode 0644. `shared`: other services of ours on the machine use it too."""

    path: str
    content: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A command. `may_fail`: it undoes what may not have been done."""

    words: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A service, as files and commands.

    `obsolete` are files that other settings asked for. `start` runs when the files are written and brings it up;
    systemd's returns when it is ready. `stop` ends and disables it, `cleared` runs when its files are gone. `others`:
    a pattern of the links of enabled services that share files with this one. `log` shows its log.
    """

    kind: Kind
    name: str
    files: tuple[File, ...]
    start: tuple[Step, ...]
    stop: tuple[Step, ...]
    log: str
    obsolete: tuple[str, ...] = ()
    cleared: tuple[Step, ...] = ()
    others: str = ""
    data: tuple[str, ...] = ()


def kind_for(machine: Machine, for_user: bool) -> Kind:
    """The kind that fits the platform and the user. Raises DatadError where there is none."""
    root = machine.me.uid == 0
    if for_user and not root:
        raise DatadError("--for-user needs root: only an administrator installs a service for somebody else")
    if machine.macos:
        if root and not for_user:
            raise DatadError("--for-user NAME is needed here: launchd's daemon keeps the tree of one user")
        return Kind.DAEMON if root else Kind.AGENT
    if machine.systemd is None:
        raise DatadError(
            "this machine is run neither by systemd nor by launchd; run `symbiont-datad run` by what does run it "
            "(a container: see the image), or take a unit from `symbiont-datad service print --kind system`"
        )
    return (Kind.INSTANCE if for_user else Kind.SYSTEM) if root else Kind.USER


def target(machine: Machine, wanted: Wanted) -> Target:
    """The service as it should be. Raises DatadError where it could not run."""
    if wanted.kind in (Kind.SYSTEM, Kind.INSTANCE, Kind.DAEMON):
        _refuse_private(machine)
    return (_launchd if wanted.kind in (Kind.AGENT, Kind.DAEMON) else _systemd)(machine, wanted)


def _refuse_private(machine: Machine) -> None:
    for path in (machine.program, *machine.needs):
        if f"{path}/".startswith(_PRIVATE):
            raise DatadError(
                f"{printable(path)}: a service of the machine can't see this; install symbiont-datad where all can, as "
                "with `python3 -m venv /opt/symbiont-datad && /opt/symbiont-datad/bin/pip install …`"
            )


# systemd


def _systemd(machine: Machine, wanted: Wanted) -> Target:
    own = wanted.kind is Kind.USER
    systemctl = ("systemctl", "--user") if own else ("systemctl",)
    name = _name(wanted)
    catalogue = [] if own else [Step(("journalctl", "--update-catalog"))]
    reload = Step((*systemctl, "daemon-reload"))
    directory = f"{_unit_directory(machine, wanted)}/{name}.d"
    drop_ins = {key: _fitted(text, machine) for key, text in _drop_ins(wanted)}
    return Target(
        kind=wanted.kind,
        name=name,
        files=(
            *_units(machine, wanted),
            *(File(f"{directory}/{key}.conf", stamped(text)) for key, text in drop_ins.items()),
        ),
        start=(
            *map(Step, _accounts(wanted)),
            *catalogue,
            reload,
            Step((*systemctl, "enable", name)),
            Step((*systemctl, "restart", name)),
        ),
        stop=(Step((*systemctl, "disable", "--now", name), may_fail=True),),
        log=f"journalctl {'--user ' * own}-u {name.removesuffix('.service')}",
        obsolete=tuple(f"{directory}/{key}.conf" for key in _DROP_INS if key not in drop_ins),
        cleared=(*catalogue, reload, Step((*systemctl, "reset-failed", name), may_fail=True)),
        others="" if own else f"{_ETC}/systemd/system/multi-user.target.wants/symbiont-datad*.service",
        data=wanted.data,
    )


def _name(wanted: Wanted) -> str:
    if wanted.kind is not Kind.INSTANCE:
        return UNIT
    try:
        return unit.instance(wanted.account.name)
    except ValueError as error:
        raise DatadError(str(error)) from None


def _accounts(wanted: Wanted) -> Iterator[tuple[str, ...]]:
    """Commands that make the user and the directories which have to be there first."""
    if wanted.kind is Kind.SYSTEM:
        yield "systemd-sysusers", f"{_ETC}/sysusers.d/symbiont-datad.conf"
        yield "systemd-tmpfiles", "--create", f"{_ETC}/tmpfiles.d/symbiont-datad.conf"
        for path in wanted.missing:
            yield "install", "-d", "-o", "symbiont", "-g", "symbiont", "-m", "0750", path
    elif wanted.kind is Kind.INSTANCE:  # by the user: what is in a home directory may be a link to anywhere
        for path in wanted.missing:
            yield "runuser", "-u", wanted.account.name, "--", "mkdir", "-p", path


_ETC = "/etc"
_CATALOGUE = "/usr/local/lib/systemd/catalog/symbiont-datad.catalog"
_DROP_INS = ("places", "network", "http")


def _units(machine: Machine, wanted: Wanted) -> Iterator[File]:
    source = {Kind.USER: "user/symbiont-datad", Kind.INSTANCE: "symbiont-datad@"}.get(wanted.kind, "symbiont-datad")
    text = _fitted(shipped(f"systemd/{source}.service"), machine)
    path = f"{_unit_directory(machine, wanted)}/{source.rpartition('/')[2]}.service"
    yield File(path, stamped(text), shared=wanted.kind is Kind.INSTANCE)
    if wanted.kind is Kind.SYSTEM:
        for kind in ("sysusers", "tmpfiles"):
            yield File(f"{_ETC}/{kind}.d/symbiont-datad.conf", stamped(shipped(f"systemd/symbiont-datad.{kind}")))
    if wanted.kind is not Kind.USER:
        yield File(_CATALOGUE, stamped(shipped("systemd/symbiont-datad.catalog")), shared=True)


def _fitted(text: str, machine: Machine) -> str:
    return unit.adapted(text, machine.systemd or 0, machine.program)


def _unit_directory(machine: Machine, wanted: Wanted) -> str:
    return f"{machine.me.home}/.config/systemd/user" if wanted.kind is Kind.USER else f"{_ETC}/systemd/system"


def _drop_ins(wanted: Wanted) -> Iterator[tuple[str, str]]:
    text = unit.drop_in(wanted.places)
    if text:
        yield "places", text
    if wanted.kind is Kind.USER:
        return
    if wanted.network:
        yield "network", shipped("systemd/drop-ins/network.conf")
    elif wanted.loopback:
        yield "http", shipped("systemd/drop-ins/http.conf")


# launchd


def _launchd(machine: Machine, wanted: Wanted) -> Target:
    own = wanted.kind is Kind.AGENT
    account = wanted.account
    plist = plistlib.loads(shipped(f"launchd/{'' if own else 'daemon/'}{LABEL}.plist").encode())
    label = LABEL if own else f"{LABEL}.{re.sub(r'[^A-Za-z0-9_.-]', '_', account.name)}"
    log = f"{account.home}/Library/Logs/symbiont-datad.log" if own else f"/Library/Logs/{label}.log"
    variables = dict(wanted.places.variables)
    if not own:
        plist["UserName"] = account.name
        variables = {"HOME": account.home, **variables}
    plist |= {
        "Label": label,
        "ProgramArguments": [machine.program, "run"],
        "StandardOutPath": log,
        "StandardErrorPath": log,
        **({"EnvironmentVariables": variables} if variables else {}),
    }
    domain = f"gui/{account.uid}" if own else "system"
    path = f"{account.home}/Library/LaunchAgents/{label}.plist" if own else f"/Library/LaunchDaemons/{label}.plist"
    out = ("launchctl", "bootout", f"{domain}/{label}")
    return Target(
        kind=wanted.kind,
        name=label,
        files=(File(path, stamped(plistlib.dumps(plist, sort_keys=False).decode())),),
        start=(
            Step(out, may_fail=True),
            Step(("launchctl", "enable", f"{domain}/{label}")),
            Step(("launchctl", "bootstrap", domain, path)),
        ),
        stop=(Step(out, may_fail=True),),
        log=f"tail -f {log}",
        data=wanted.data,
    )
