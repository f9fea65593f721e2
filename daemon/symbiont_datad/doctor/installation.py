"""The service that should run the daemon: installed, enabled, running, and with the settings that are seen here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.doctor.seen import Fact, Seen
from symbiont_datad.errors import DatadError, SettingsError
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.service import install, survey
from symbiont_datad.service.stamp import Standing
from symbiont_datad.service.target import Account, Kind, Machine, Target, target
from symbiont_datad.settings import Loaded, leaves


@dataclass(frozen=True, slots=True)
class Service:
    """One service that is installed, in the words of its manager (`active`, `enabled`).

    `keeps`: the tree that it is about. `files`: those that are not as `service install` would write them, each with how
    it stands. `differ`: settings that it sees otherwise than the one who asks, each with where the value here is from.
    """

    name: str
    kind: Kind
    keeps: str
    active: str
    enabled: str
    log: str
    files: Mapping[str, str]
    differ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Installation:
    """What the machine's service manager knows of us. `manager`: empty where there is none that we know."""

    root: str
    manager: str
    services: tuple[Service, ...] = ()
    problem: str = ""

    @property
    def ours(self) -> Service | None:
        """The one that keeps this tree."""
        return next((one for one in self.services if one.keeps == self.root), None)


def look(loaded: Loaded, config: Path | None, root: Path | None) -> Installation:
    """Ask the service manager; `config` and `root` are what was typed before the command."""
    here = str(loaded.settings.root_data_dir)
    try:
        machine = survey.machine()
    except DatadError:  # a user whom the machine does not know, as in many a container
        return Installation(here, "")
    if not machine.macos and machine.systemd is None:
        return Installation(here, "")
    found, problem = [], ""
    for kind, who in _candidates(machine):
        try:
            wanted = target(machine, survey.wanted(kind, who, config, root))
        except SettingsError as error:
            problem = problem or f"a service could not start with the settings that it sees: {error}"
            continue
        except DatadError:  # it could not be installed: this program, or these settings, are none of its business
            continue
        try:
            state = install.state(wanted)
        except DatadError as error:
            problem = problem or str(error)
            continue
        if state.enabled != "not found":
            differ = _differing(loaded, survey.as_seen_by(kind, who, config, root))
            found.append(_service(wanted, state, differ))
    return Installation(here, "launchd" if machine.macos else "systemd", tuple(found), "" if found else problem)


def _candidates(machine: Machine) -> Iterator[tuple[Kind, Account]]:
    me = machine.me
    if machine.macos:
        yield (Kind.AGENT if me.uid else Kind.DAEMON), me
        return
    if me.uid:
        yield Kind.USER, me
        yield Kind.INSTANCE, me
    yield Kind.SYSTEM, me


def _service(wanted: Target, state: install.State, differ: Mapping[str, str]) -> Service:
    files = {
        change.path: str(change.standing)
        for change in install.changes(wanted)
        if change.standing is not Standing.SAME or change.goes
    }
    return Service(wanted.name, wanted.kind, wanted.data[0], state.active, state.enabled, wanted.log, files, differ)


def _differing(here: Loaded, there: Loaded) -> dict[str, str]:
    """The settings of which the service has another value; the places that follow from its own home are not told."""
    values = {leaf.name: leaf.value for leaf in leaves(there.settings)}
    return {
        leaf.name: here.origins[leaf.name]
        for leaf in leaves(here.settings)
        if values.get(leaf.name) != leaf.value
        and not (here.origins[leaf.name] == there.origins.get(leaf.name) == "default")
    }


def judge(found: Installation, *, running: bool) -> Seen:
    """What is wrong with it; `running`: whether a daemon keeps the tree, however it was started."""
    if not found.manager:
        return Seen("service", "neither systemd nor launchd runs this machine", {"manager": None})
    ours = found.ours
    findings = [
        Finding("keeps_another_tree", one.keeps, Severity.INFO, f"{one.name} keeps this, not {printable(found.root)}",
                f"`symbiont-datad --root {printable(one.keeps)} check` looks at that one")
        for one in found.services
        if one is not ours
    ]  # fmt: skip
    if ours is None:
        if found.problem:
            findings.append(Finding("service_unseen", "", Severity.INFO, found.problem, "ask as the user who has it"))
        how = "the daemon was started by other means" if running else "nothing starts the daemon"
        facts: dict[str, Fact] = {"manager": found.manager, "installed": False}
        return Seen("service", f"none is installed for this tree; {how}", facts, tuple(findings))
    findings += _findings(ours)
    return Seen(
        "service",
        f"{ours.name}: {ours.active}, {ours.enabled}",
        {
            "manager": found.manager,
            "installed": True,
            "name": ours.name,
            "kind": str(ours.kind),
            "active": ours.active,
            "enabled": ours.enabled,
            "files": dict(ours.files),
            "differ": dict(ours.differ),
        },
        tuple(findings),
    )


def _findings(ours: Service) -> Iterator[Finding]:
    user = " --user" if ours.kind is Kind.USER else ""
    manager = "systemctl" if ours.kind not in (Kind.AGENT, Kind.DAEMON) else "launchctl"
    if ours.active != "active":
        remedy = f"`{manager}{user} start {ours.name}`; why it is not: `{ours.log}`"
        yield Finding("service_down", "", Severity.ERROR, f"{ours.name} is {ours.active}", remedy)
    if ours.enabled not in ("enabled", "enabled-runtime", "static", "linked"):
        detail = f"{ours.name} is {ours.enabled}: it will not run after the next boot"
        yield Finding("service_disabled", "", Severity.WARNING, detail, f"`{manager}{user} enable {ours.name}`")
    if ours.files:
        listed = ", ".join(f"{printable(path)} ({standing})" for path, standing in ours.files.items())
        remedy = "`symbiont-datad service install` shows the difference, and brings them up to date"
        detail = f"its files are not those of this version and these settings: {listed}"
        yield Finding("service_outdated", "", Severity.WARNING, detail, remedy)
    if ours.differ:
        listed = ", ".join(f"{name} (here from {printable(origin)})" for name, origin in ours.differ.items())
        remedy = "put them into its settings file: a service does not see the environment of your shell"
        detail = f"the service sees other settings than this command: {listed}"
        yield Finding("settings_differ", "", Severity.WARNING, detail, remedy)
