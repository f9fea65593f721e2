"""Giving what was restored its owner, extended attributes, mode and times, in that order.

A change of owner takes set-user-ID and set-group-ID away, and writing an attribute may need a right that the mode takes
away. Owners are numbers, as restic restores them. Whoever is not root gets what the system allows: what can't be given
to its owner belongs to the one who restores, and then it is never set-user-ID or set-group-ID for him.
"""

import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.tree import Node, permissions

Target = int | bytes | str

_O_PATH = getattr(os, "O_PATH", 0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_NS = 1_000_000_000
_OWNERS = 1 << 32
"""restic's numbers of users and groups are `uint32`, and so are the system's."""


class Metadata(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is restored of a node beside its content. `mode` as chmod(2) takes it; times as seconds since 1970 and
    nanoseconds, because nanoseconds alone fill 64 bits in the year 2262, and a tree may have the year 9999.
    """

    mode: int
    uid: int
    gid: int
    atime: tuple[int, int]
    mtime: tuple[int, int]
    attributes: list[tuple[str, bytes]]

    @property
    def times_ns(self) -> tuple[int, int]:
        """When it was read and written last, in nanoseconds since 1970."""
        return self.atime[0] * _NS + self.atime[1], self.mtime[0] * _NS + self.mtime[1]


def metadata_of(node: Node) -> Metadata:
    """What a node says of owner, mode, times and extended attributes. Raises Damaged."""
    mtime = divmod(time_ns(node.mtime), _NS)
    if not (0 <= node.uid < _OWNERS and 0 <= node.gid < _OWNERS):
        raise Damaged(f"there can be no owner {node.uid}:{node.gid}")
    return Metadata(
        permissions(node.mode),
        node.uid,
        node.gid,
        mtime if node.atime == node.mtime else divmod(time_ns(node.atime), _NS),
        mtime,
        [(attribute.name, attribute.value) for attribute in node.extended_attributes],
    )


def time_ns(text: str) -> int:
    """An RFC 3339 time, as a node has it, in nanoseconds since the epoch. Raises Damaged."""
    moment, dot, rest = text.partition(".")
    try:
        if not dot:
            return _seconds(text) * _NS
        zone = rest.lstrip("0123456789")
        return _seconds(moment + zone) * _NS + int(f"{rest[: len(rest) - len(zone)]:0<9}"[:9])
    except (ValueError, TypeError, OverflowError):  # no time; one without a zone; one before the first year
        raise Damaged(f"the time {text!r} can't be read") from None


@lru_cache(maxsize=4096)
def _seconds(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // _SECOND


def apply(fd: int, wanted: Metadata, born: tuple[int, int]) -> None:
    """Give an open file or directory its metadata. `born`: the user and group that it has now.

    Everything is tried; then the first failure is raised, as OSError.
    """
    if born == (wanted.uid, wanted.gid) and not wanted.attributes:
        os.fchmod(fd, wanted.mode)
        os.utime(fd, ns=wanted.times_ns)
    else:
        _apply(fd, 0, wanted, {})


def apply_by_name(name: bytes, dir_fd: int, kind: int, wanted: Metadata) -> None:
    """Give a link, FIFO or device that was just made its metadata; `kind` are its format bits. Raises OSError.

    It is never opened for use. What somebody put in its place meanwhile is refused, not changed.
    """
    if not _O_PATH:
        _apply(name, kind, wanted, {"dir_fd": dir_fd, "follow_symlinks": False})
        return
    fd = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if stat.S_IFMT(found.st_mode) != kind or found.st_nlink != 1:
            raise OSError(errno.EBUSY, "something else is there by now")
        _apply(f"/proc/self/fd/{fd}", kind, wanted, {})
    finally:
        os.close(fd)


def _apply(target: Target, kind: int, wanted: Metadata, how: dict[str, Any]) -> None:
    failures: list[OSError] = []
    denied = _set_owner(target, wanted, how, failures)
    if wanted.attributes and not how:
        _set_attributes(target, wanted, failures)
    try:
        if kind != stat.S_IFLNK:
            os.chmod(target, wanted.mode & ~denied, **how)
        os.utime(target, ns=wanted.times_ns, **how)
    except OSError as error:
        failures.append(error)
    if failures:
        raise failures[0]


def _set_owner(target: Target, wanted: Metadata, how: dict[str, Any], failures: list[OSError]) -> int:
    """Change the owner as far as we may; hand back the mode bits that are not to be set, since they lend his rights."""
    try:
        os.chown(target, wanted.uid, wanted.gid, **how)
    except OSError as error:
        if os.geteuid() == 0:
            failures.append(OSError(error.errno, f"its owner can't be set: {error.strerror}"))
    else:
        return 0
    denied = 0 if wanted.uid == os.geteuid() else stat.S_ISUID
    try:
        os.chown(target, -1, wanted.gid, **how)
    except OSError:
        denied |= stat.S_ISGID
    return denied


def _set_attributes(target: Target, wanted: Metadata, failures: list[OSError]) -> None:
    """Set extended attributes. Those of the system (`security.` and so on) are root's to set; others leave them out."""
    if not hasattr(os, "setxattr"):  # Python has it on Linux only
        failures.append(OSError(errno.ENOTSUP, "extended attributes can't be set on this system"))
        return
    for name, value in wanted.attributes:
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if name.startswith("user.") or os.geteuid() == 0:
                failures.append(OSError(error.errno, f"its attribute {name} can't be set: {error.strerror}"))
        except ValueError:  # a NUL in the name
            failures.append(OSError(errno.EINVAL, f"there can be no attribute {name!r}"))
