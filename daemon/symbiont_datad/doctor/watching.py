"""Whether the kernel lets the daemon watch as many directories as it has to."""

from contextlib import suppress
from dataclasses import dataclass

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.watch_limits import WatchLimits, watch_limits
from symbiont_datad.guard.saves import Saves
from symbiont_datad.layout import Layout
from symbiont_datad.report import Finding, Severity

_OWN = 1  # the directory that holds the root
_SCARCE = 0.9
_WATCHES, _INSTANCES = 524_288, 1024
"""What desktop distributions set; a watch takes about 1 KiB of the kernel's memory, and only when it is used."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The limits of the tree's keeper, and how many watches it needs. `running`: those are in use already."""

    limits: WatchLimits | None
    needed: int
    running: bool


def look(layout: Layout, uid: int, *, running: bool) -> Watching:
    """Count what is to be watched, and ask for the limits of the user who does it."""
    saves = 0
    with suppress(OSError, UnsafePath):
        saves = len(Saves(layout.saves).directories(layout.tree))
    return Watching(watch_limits(uid), _OWN + len(layout.watched) + saves, running)


def judge(found: Watching) -> Seen:
    """What is scarce, with the line that makes more."""
    limits = found.limits
    if limits is None:
        return Seen("watching", "this system has no inotify; what it tells of changes needs no limit", {})
    needed = 0 if found.running else found.needed
    findings = []
    if limits.used_watches + needed > limits.watches * _SCARCE:
        detail = (
            f"{limits.used_watches:,} of {limits.watches:,} watches of this user are taken, {found.needed} are needed"
        )
        findings.append(_scarce("watches", "fs.inotify.max_user_watches", detail, max(_WATCHES, limits.watches * 2)))
    if limits.used_instances + (not found.running) > limits.instances * _SCARCE:
        detail = f"{limits.used_instances} of {limits.instances} inotify instances of this user are taken"
        findings.append(
            _scarce("instances", "fs.inotify.max_user_instances", detail, max(_INSTANCES, limits.instances * 2))
        )
    return Seen(
        "watching",
        f"{found.needed} directories; {limits.used_watches:,} of {limits.watches:,} watches and "
        f"{limits.used_instances} of {limits.instances} instances are taken",
        {
            "needed_watches": found.needed,
            "max_user_watches": limits.watches,
            "max_user_instances": limits.instances,
            "max_queued_events": limits.queued,
            "used_watches": limits.used_watches,
            "used_instances": limits.used_instances,
        },
        tuple(findings),
    )


def _scarce(what: str, name: str, detail: str, enough: int) -> Finding:
    remedy = (
        f"as root: `sysctl -w {name}={enough}`, and for good "
        f"`echo {name}={enough} >/etc/sysctl.d/60-{_slug(name)}.conf`; until then the periodic scan "
        "repairs, a little later"
    )
    return Finding(f"scarce_{what}", "", Severity.WARNING, detail, remedy)


def _slug(name: str) -> str:
    return name.rpartition(".")[2].replace("_", "-")
