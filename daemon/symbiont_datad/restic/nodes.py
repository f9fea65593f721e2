"""Nodes: what lstat, and the content that was read, say of one entry of a directory, as restic writes it down."""

import grp
import os
import pwd
import stat
from functools import lru_cache

from symbiont_datad.restic.reading import Content, as_text, attributes_at
from symbiont_datad.restic.records import format_time_ns
from symbiont_datad.restic.tree import TYPES, Attribute, Node, encode_node, go_mode, quote


def file_node(name: bytes, content: Content) -> bytes:
    """The node of a regular file."""
    found = content.found
    mtime = format_time_ns(found.st_mtime_ns)
    return encode_node(
        Node(
            name=quote(name),
            type="file",
            mode=go_mode(found.st_mode),
            mtime=mtime,
            atime=mtime,
            ctime=format_time_ns(found.st_ctime_ns),
            uid=found.st_uid,
            gid=found.st_gid,
            user=_user(found.st_uid),
            group=_group(found.st_gid),
            inode=found.st_ino,
            device_id=found.st_dev if found.st_nlink > 1 else 0,
            size=content.size,
            links=found.st_nlink,
            extended_attributes=[Attribute(*pair) for pair in content.attributes],
            content=content.chunks,
            error=content.error,
        )
    )


def directory_node(name: bytes, found: os.stat_result, tree: bytes, attributes: list[tuple[str, bytes]]) -> bytes:
    """The node of a directory with this tree."""
    node = _bare_node(name, found, "dir")
    node.extended_attributes = [Attribute(*pair) for pair in attributes]
    node.subtree = tree.hex()
    return encode_node(node)


def special_node(dir_fd: int, name: bytes, found: os.stat_result) -> bytes:
    """The node of a link, FIFO, socket or device. Raises OSError for a link that can't be read."""
    kind = TYPES.get(stat.S_IFMT(found.st_mode), "")
    node = _bare_node(name, found, kind)
    node.extended_attributes = [Attribute(*pair) for pair in attributes_at(dir_fd, name)]
    if kind not in ("fifo", "socket"):
        node.links = found.st_nlink
    if node.links != 1:  # so restic has it, and equal trees are stored once
        node.device_id = found.st_dev
    if kind in ("dev", "chardev"):
        node.device = found.st_rdev
    if kind == "symlink":
        target = os.readlink(name, dir_fd=dir_fd)
        try:
            node.linktarget = target.decode()
        except UnicodeDecodeError:
            node.linktarget = target.decode("utf-8", "replace")
            node.linktarget_raw = target
    return encode_node(node)


def _bare_node(name: bytes, found: os.stat_result, kind: str) -> Node:
    mtime = format_time_ns(found.st_mtime_ns)
    return Node(
        name=quote(name),
        type=kind,
        mode=go_mode(found.st_mode),
        mtime=mtime,
        atime=mtime,
        ctime=format_time_ns(found.st_ctime_ns),
        uid=found.st_uid,
        gid=found.st_gid,
        user=_user(found.st_uid),
        group=_group(found.st_gid),
        inode=found.st_ino,
        content=None,
    )


@lru_cache
def _user(uid: int) -> str:
    try:
        return as_text(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return ""


@lru_cache
def _group(gid: int) -> str:
    try:
        return as_text(grp.getgrgid(gid).gr_name)
    except KeyError:
        return ""
