"""What the tree's file system can do, and how full it is."""

from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.features import Features, features
from symbiont_datad.fsops.opened import is_shared
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.retention.pressure import Marks

_LACKS = {
    "collapse": (
        "logs that a process holds open can't be rotated without a gap here",
        "have writers open their log for each line, or keep `logs/` on ext4 or xfs",
    ),
    "case_sensitive": (
        "names that differ only in capitals are one name here, so one agent could write over another one's files",
        "name agents by their ids, as the runtime does",
    ),
    "exchange": (
        "two names can't change places in one step here: a rotated or restored file's name is missing for an instant",
        "nothing is lost by it; ext4, xfs, btrfs and tmpfs can",
    ),
    "hard_links": (
        "files can't have a second name here; a new key file and some renames take a step more",
        "nothing is lost by it; FAT and some network file systems are like that",
    ),
}
_WORDS = {
    "collapse": "collapse",
    "reflink": "reflink",
    "case_sensitive": "case",
    "hard_links": "hard links",
    "exchange": "exchange",
    "modes": "modes",
}


@dataclass(frozen=True, slots=True)
class Disk:
    """The tree's file system (None: `problem` says why it can't be looked at), and what room is wanted on it.

    `own_shared`: whether the daemon's own directory lies where other machines may write too.
    """

    root: str
    found: Features | None
    problem: str
    marks: Marks
    own: str
    own_shared: bool


def look(root: str, own: Path, marks: Marks) -> Disk:
    """Try what it can do, in the daemon's own directory where something needs a name."""
    scratch = own if own.is_dir() else None
    shared = scratch is not None and is_shared(str(scratch.resolve()))
    try:
        return Disk(root, features(root, scratch), "", marks, str(own), shared)
    except (OSError, UnsafePath) as error:
        return Disk(root, None, getattr(error, "strerror", None) or str(error), marks, str(own), shared)


def judge(disk: Disk) -> Seen:
    """What is wrong with it; what it can't do is a note."""
    found = disk.found
    findings = []
    if disk.own_shared:
        detail = "the ledger is an SQLite file, and its locks are not to be trusted on a network file system"
        remedy = "set `daemon_dir` to a directory on a disk of this machine"
        findings.append(Finding("ledger_on_network", disk.own, Severity.WARNING, detail, remedy))
    if found is None:
        return Seen("file system", f"can't be looked at: {disk.problem}", {}, tuple(findings))
    findings += _room(disk, found)
    if found.read_only:
        detail = f"the {found.kind or 'file system'} at {printable(found.mounted_at)} is mounted read-only"
        remedy = "after an error the kernel does that: look at `dmesg`, check the disk, and mount it again"
        findings.append(Finding("read_only", disk.root, Severity.ERROR, detail, remedy))
    if found.modes is False:
        detail = "modes are not kept here, so nothing can be closed to other users"
        remedy = "keep the tree on a file system of Unix (ext4, xfs, btrfs, APFS)"
        findings.append(Finding("no_modes", disk.root, Severity.WARNING, detail, remedy))
    if found.shared:
        detail = f"{found.kind}: other machines may write here, unseen by this one's watches and locks"
        remedy = 'one machine alone should keep the tree; `guard.watch = "polling"` sees more of the others\' changes'
        findings.append(Finding("shared", disk.root, Severity.INFO, detail, remedy))
    findings += [
        Finding(f"no_{name}", disk.root, Severity.INFO, lack, advice)
        for name, (lack, advice) in _LACKS.items()
        if getattr(found, name) is False
    ]
    can = [word for name, word in _WORDS.items() if getattr(found, name)]
    cant = [f"no {word}" for name, word in _WORDS.items() if getattr(found, name) is False]
    inodes = f", {_part(found.free_inodes, found.total_inodes)} of the inodes" if found.total_inodes else ""
    return Seen(
        "file system",
        f"{found.kind or 'of a kind that can not be told'}{_at(found)}: {', '.join([*can, *cant])}; free: "
        f"{format_size(found.free_bytes)} ({_part(found.free_bytes, found.total_bytes)}){inodes}",
        {
            "kind": found.kind,
            "mounted_at": found.mounted_at,
            "shared": found.shared,
            "read_only": found.read_only,
            "free_bytes": found.free_bytes,
            "total_bytes": found.total_bytes,
            "free_inodes": found.free_inodes,
            "total_inodes": found.total_inodes,
            **{name: getattr(found, name) for name in _WORDS},
        },
        tuple(findings),
    )


def _at(found: Features) -> str:
    return f" at {printable(found.mounted_at)}" if found.mounted_at else ""


def _part(free: int, total: int) -> str:
    return f"{free * 100 // total} %" if total else "unknown"


def _room(disk: Disk, found: Features) -> list[Finding]:
    findings = []
    marks = disk.marks
    for kind, setting, free, total, mark in (
        ("little_space", "limits.high_water", found.free_bytes, found.total_bytes, marks.high),
        ("few_inodes", "limits.inodes.high_water", found.free_inodes, found.total_inodes, marks.inodes_high),
    ):
        if not total or free >= mark.of(total):
            continue
        left = format_size(free) if kind == "little_space" else f"{free:,} inodes"
        detail = f"{left} are free, and the daemon makes room below {setting} = {mark}"
        remedy = "`symbiont-datad clean --dry-run` says what may go, `status` what grows"
        findings.append(Finding(kind, disk.root, Severity.ERROR if not free else Severity.WARNING, detail, remedy))
    return findings
