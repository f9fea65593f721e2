"""Who this process is, for those on other machines and in other containers who see only what it wrote down."""

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

_FIRST_PID_SPACE = 0xEFFFFFFC
"""The inode of the pid namespace that the kernel itself began (Linux `include/linux/proc_ns.h`, PROC_PID_INIT_INO)."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PID_SPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Process:
    """This process: its machine's name, its user, its number and the space of numbers that it is from.

    `namespace` is the id of the boot and the inode of the pid namespace, so no other on any machine has the same; empty
    where the system doesn't tell. `own_pid_space`: the process is in a container, whose processes others on a machine
    of the same name may not see.
    """

    hostname: str
    username: str
    pid: int
    uid: int
    gid: int
    namespace: str
    own_pid_space: bool


def this_process() -> Process:
    """Who we are now; a forked child is somebody else."""
    uid = os.getuid()
    try:
        username = pwd.getpwuid(uid).pw_name
    except KeyError:
        username = str(uid)
    try:
        inode = _PID_SPACE.stat().st_ino
        namespace = f"{_BOOT.read_text().strip()}-{inode}"
    except OSError:
        inode, namespace = _FIRST_PID_SPACE, ""
    return Process(socket.gethostname(), username, os.getpid(), uid, os.getgid(), namespace, inode != _FIRST_PID_SPACE)
