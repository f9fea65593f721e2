"""What several tests share: trees as data, and a function run as somebody who is not root."""

import ctypes
import mmap
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias, TypeVar

T = TypeVar("T")

NOBODY = 65534
"""A user id and group id that own nothing."""

AMPLE = {
    "SYMBIONT_DATAD_LIMITS__HIGH_WATER": "0%",
    "SYMBIONT_DATAD_LIMITS__INODES__HIGH_WATER": "0%",
    "SYMBIONT_DATAD_BACKUP__MIN_FREE": "0%",
}
"""Variables with which no disk is too full for the daemon (the fixture `ample` sets them)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in a tree."""

    target: str


Tree: TypeAlias = Mapping[str, "Tree | bytes | Link"]
"""A directory by the names in it: a mapping is a directory, bytes are a file, `Link` is a symbolic link."""


def own_environ() -> dict[str, str]:
    """The environment without settings of the machine's own daemon; with `AMPLE` where the fixture `ample` set it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SYMBIONT_") or value == AMPLE.get(name)
    }


def build_tree(root: Path, tree: Tree) -> Path:
    """Make what `tree` says inside `root`, which is made as well where it is missing. Returns `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for name, node in tree.items():
        path = root / name
        match node:
            case bytes():
                path.write_bytes(node)
            case Link(target):
                path.symlink_to(target)
            case _:
                build_tree(path, node)
    return root


def read_tree(root: Path) -> Tree:
    """What lies inside `root`, as `build_tree` takes it. Sockets, pipes and devices are refused with `ValueError`."""
    tree: dict[str, Tree | bytes | Link] = {}
    for path in root.iterdir():
        if path.is_symlink():
            tree[path.name] = Link(os.readlink(path))
        elif path.is_dir():
            tree[path.name] = read_tree(path)
        elif path.is_file():
            tree[path.name] = path.read_bytes()
        else:
            raise ValueError(f"{path} is no directory, file or link")
    return tree


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """A file, be it empty, that is mapped for writing with its descriptor closed, so that `/proc/PID/fd` has no sign of
    it. Python's own mapping keeps a descriptor.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fd = os.open(path, os.O_RDWR)
    place = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    if place == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap", str(path))
    try:
        yield
    finally:
        libc.munmap(place, mmap.PAGESIZE)


def run_as(uid: int, function: Callable[[], T]) -> T:
    """Call `function` in a forked child whose user and group are `uid`, with no other groups, and return its result.

    What it raises is raised here, with the child's traceback as a note. Result and exception go through pickle. The
    child may be unable to read the interpreter's own files, so `function` should import nothing. Needs root.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and newer warn where threads exist (xdist has some). The child only calls and leaves.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(readable)
        _answer(writable, uid, function)
    os.close(writable)
    with open(readable, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not answer:
        raise ChildProcessError(f"the child left without an answer: {os.waitstatus_to_exitcode(status)}")
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    value: T = result
    return value


def _answer(writable: int, uid: int, function: Callable[[], object]) -> NoReturn:
    """The child's part of `run_as`: call, write `(result, exception)` as a pickle, and leave at once."""
    try:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        answer = pickle.dumps((function(), None))
    except BaseException as error:
        error.add_note(f"in the child:\n{traceback.format_exc()}")
        try:
            answer = pickle.dumps((None, error))
        except Exception:
            answer = pickle.dumps((None, RuntimeError(traceback.format_exc())))
    with open(writable, "wb") as pipe:
        pipe.write(answer)
    sys.stderr.flush()
    os._exit(0)
