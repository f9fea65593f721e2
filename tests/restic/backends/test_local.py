"""A repository in a directory: the order of writes, faults of the disk, what a crash leaves, and what restic made."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Missing, NoSpace, RepositoryError
from symbiont_datad.restic.local import LocalBackend, _read, _rest
from tests.conftest import AsNobody
from tests.support import NOBODY, read_tree

DATA, KEY, LOCK = FileKind.DATA, FileKind.KEY, FileKind.LOCK
NAME = "ab" * 32
DAY = 86_400.0


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    """An empty repository's place."""
    made = LocalBackend(str(tmp_path / "repository"))
    made.create()
    return made


def files(backend: LocalBackend) -> list[str]:
    """Every file below the repository's directory, relative to it."""
    root = Path(backend.location)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_the_layout_is_restics_and_private(tmp_path: Path) -> None:
    """All directories are there at once with mode 0700 and files get 0600, whatever the umask says."""
    before = os.umask(0)
    try:
        backend = LocalBackend(str(tmp_path / "not/yet/there"))
        backend.create()
        for kind in FileKind:
            backend.save(kind, NAME, [b"x"])
    finally:
        os.umask(before)
    root = Path(backend.location)
    made = {path: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}
    assert {"data", "index", "keys", "locks", "snapshots", "config"} == set(os.listdir(root))
    assert [f"{number:02x}" for number in range(256)] == sorted(os.listdir(root / "data"))
    assert {(True, 0o700), (False, 0o600)} == {(path.is_dir(), mode) for path, mode in made.items()}
    assert (root / "data/ab" / NAME).is_file()


def test_the_location_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from where the process is when it is given, not from where it goes later."""
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "repository") == LocalBackend("repository").location


def test_nothing_there_is_missing(tmp_path: Path) -> None:
    """Without a directory there is no config and nothing to list; a save doesn't make one."""
    backend = LocalBackend(str(tmp_path / "nowhere"))
    with pytest.raises(Missing, match="nowhere/config"):
        backend.load(FileKind.CONFIG, "")
    assert [] == [entry for kind in FileKind for entry in backend.list(kind)]
    for kind in (FileKind.CONFIG, LOCK, DATA):
        with pytest.raises(RepositoryError, match=r"can't save .*nowhere/.*: no such file"):
            backend.save(kind, NAME, [b"x"])
    with pytest.raises(RepositoryError, match="nowhere"):
        backend.free()
    assert {} == read_tree(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/repository"])
def test_a_file_in_the_way_is_told(tmp_path: Path, place: str) -> None:
    """Where a file lies in the place of the directory or of its parent, every call says so."""
    (tmp_path / "file").write_bytes(b"x")
    backend = LocalBackend(str(tmp_path / place))
    calls: tuple[Callable[[], object], ...] = (
        backend.create,
        lambda: backend.load(FileKind.CONFIG, ""),
        lambda: backend.save(KEY, NAME, [b"x"]),
        lambda: list(backend.list(KEY)),
        lambda: backend.remove(KEY, NAME),
    )
    for call in calls:
        with pytest.raises(RepositoryError, match=r"can't .*/file.*: (not a directory|file exists)"):
            call()
    assert {"file": b"x"} == read_tree(tmp_path)


def test_missing_directories_are_made_again(backend: LocalBackend) -> None:
    """A copy that lost the empty directories can be written to; one that lost `data` itself can't."""
    root = Path(backend.location)
    (root / "data/ab").rmdir()
    (root / "locks").rmdir()
    assert ([], []) == (list(backend.list(DATA)), list(backend.list(LOCK)))
    backend.save(DATA, NAME, [b"x"])
    backend.save(LOCK, NAME, [b"y"])
    assert [f"data/ab/{NAME}", f"locks/{NAME}"] == files(backend)
    assert {0o700} == {stat.S_IMODE((root / path).stat().st_mode) for path in ("data/ab", "locks")}
    shutil.rmtree(root / "data")
    with pytest.raises(RepositoryError, match=r"can't save .*/data/ab/abab"):
        backend.save(DATA, NAME, [b"x"])


@pytest.mark.parametrize("kind", [KEY, DATA])
def test_what_is_no_file_is_refused(backend: LocalBackend, kind: FileKind) -> None:
    """A link isn't followed, a FIFO doesn't block, a directory is no file: none is read or listed."""
    root = Path(backend.location)
    folder = root / "keys" if kind is KEY else root / "data/ab"
    (root / "secret").write_bytes(b"secret")
    names = [f"ab{letter * 62}" for letter in "123"]
    (folder / names[0]).symlink_to(root / "secret")
    os.mkfifo(folder / names[1])
    (folder / names[2]).mkdir()
    for name, why in zip(names, ["a symbolic link", "no regular file", "no regular file"], strict=True):
        with pytest.raises(RepositoryError, match=rf"can't read .*{name}: it is {why}"):
            backend.load(kind, name)
    assert [] == list(backend.list(kind))


def test_leftovers_of_a_crash_are_swept(backend: LocalBackend) -> None:
    """Temporary files that are over a day old go, restic's as well; younger ones and everything else stay."""
    root = Path(backend.location)
    now = 1_795_000_000.0
    old = [f"data/ab/{NAME}-tmp-0a1b2c3d4e5f6071", f"locks/{NAME}-tmp-123456789", "config-tmp-42"]
    kept = [f"data/ab/{NAME}", f"index/{NAME}-tmp-1", "keys/notes-tmp-1", "notes.txt"]
    for path in (*old, *kept):
        (root / path).write_bytes(b"x")
        os.utime(root / path, (now, now - (DAY - 1 if path.startswith("index") else DAY + 1)))
    (root / f"snapshots/{NAME}-tmp-1").mkdir()
    assert sorted(str(root / path) for path in old) == sorted(backend.sweep(now))
    assert sorted(kept) == files(backend)
    assert () == backend.sweep(now)


def test_a_temporary_file_is_not_listed(backend: LocalBackend) -> None:
    """What a save has not finished is no file of the repository."""
    for path in (f"data/ab/{NAME}-tmp-1", f"keys/{NAME}-tmp-1", f"data/{NAME}"):
        (Path(backend.location) / path).write_bytes(b"half")
    assert [] == [entry for kind in FileKind for entry in backend.list(kind)]


@given(st.lists(st.binary(max_size=9)), st.data())
def test_a_short_write_goes_on_where_it_stopped(parts: list[bytes], data: st.DataObject) -> None:
    """However many bytes the system took, the rest is what it did not take."""
    whole = b"".join(parts)
    written = data.draw(st.integers(0, len(whole)))
    assert whole[written:] == b"".join(_rest(parts, written))


def test_a_short_read_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """More than there is, or than one call gives, is read until nothing comes."""
    (tmp_path / "file").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert [b"456789", b"", b"01"] == [_read(fd, 4, 100), _read(fd, 10, 5), _read(fd, 0, 2)]
    finally:
        os.close(fd)


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """A file system of 4 MiB in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(at)], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True, timeout=10)


def test_a_full_disk_is_told_and_left_clean(tmp_path: Path) -> None:
    """A pack that doesn't fit is NoSpace and leaves nothing; what was there stays, and what fits can be saved again."""
    with small_disk(tmp_path / "disk"):
        backend = LocalBackend(str(tmp_path / "disk/repository"))
        backend.create()
        backend.save(KEY, NAME, [b"key"])
        before = backend.free()
        for turn in range(3):
            with pytest.raises(NoSpace, match=rf"can't save .*/data/ab/{NAME}: no space left"):
                backend.save(DATA, NAME, [bytes(5000)] * 1000)
            assert ([f"keys/{NAME}"], before) == (files(backend), backend.free()), turn
        backend.save(KEY, NAME, [b"key"])
        backend.save(DATA, NAME, [b"x" * 1_000_000])
        with pytest.raises(NoSpace):
            backend.save(DATA, NAME, [bytes(5_000_000)])
        assert b"x" * 1_000_000 == backend.load(DATA, NAME)


def test_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    """On a file system that is mounted read-only all can be read, and every change says why it can't be made."""
    with small_disk(tmp_path / "disk"):
        backend = LocalBackend(str(tmp_path / "disk/repository"))
        backend.create()
        backend.save(KEY, NAME, [b"key"])
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True, timeout=10)
        assert b"key" == backend.load(KEY, NAME)
        with pytest.raises(RepositoryError, match=rf"can't save .*/keys/{NAME}: read-only file system"):
            backend.save(KEY, NAME, [b"x"])
        with pytest.raises(RepositoryError, match=rf"can't remove .*/keys/{NAME}: read-only file system"):
            backend.remove(KEY, NAME)


def test_what_belongs_to_somebody_else(open_path: Path, as_nobody: AsNobody) -> None:
    """Without permission each call fails with the file's name, and changes nothing."""
    backend = LocalBackend(str(open_path / "repository"))
    backend.create()
    backend.save(KEY, NAME, [b"key"])
    root = Path(backend.location)

    def refused(call: str) -> str:
        try:
            match call:
                case "load":
                    backend.load(KEY, NAME)
                case "save":
                    backend.save(KEY, NAME, [b"x"])
                case "remove":
                    backend.remove(KEY, NAME)
                case "list":
                    list(backend.list(KEY))
        except RepositoryError as error:
            return f"{type(error).__name__}: {error}"
        return "done"

    denied = "permission denied"
    calls = {"load": f"read {root}/keys/{NAME}", "save": f"save {root}/keys/{NAME}"}
    calls |= {"remove": f"remove {root}/keys/{NAME}", "list": f"list {root}/keys"}
    for call, what in calls.items():
        assert f"RepositoryError: can't {what}: {denied}" == as_nobody(partial(refused, call))
    for path in (root, root / "keys"):
        path.chmod(0o755)
    readable = root / "keys" / NAME
    readable.chmod(0o400)
    os.chown(readable, NOBODY, NOBODY)
    assert b"key" == as_nobody(lambda: backend.load(KEY, NAME))
    assert f"RepositoryError: can't save {readable}: {denied}" == as_nobody(lambda: refused("save"))
    assert [f"keys/{NAME}"] == files(backend)


SAVE = """
import sys
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.local import LocalBackend
try:
    LocalBackend(sys.argv[1]).save(FileKind(sys.argv[2]), "ab" * 32, [b"new"])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def traced(
    *options: str, log: Path, backend: LocalBackend, kind: FileKind, script: str = SAVE
) -> "subprocess.CompletedProcess[str]":
    """A save (or what the script does) by a process of its own that strace looks at."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-y", "-o", str(log), *options, sys.executable, "-c", script, backend.location, kind]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FileKind)
def test_every_save_is_in_order(backend: LocalBackend, tmp_path: Path, kind: FileKind) -> None:
    """Write, fsync of the file, rename, fsync of its directory: in this order, and nothing else that writes."""
    root = backend.location
    calls = "trace=write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
    done = traced("-e", calls, log=tmp_path / "log", backend=backend, kind=kind)
    assert (0, "") == (done.returncode, done.stderr)
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if root in line]
    folder, name = {
        FileKind.CONFIG: (root, "config"),
        DATA: (f"{root}/data/ab", NAME),
    }.get(kind, (f"{root}/{kind}", NAME))
    temporary = rf"{name}-tmp-[0-9a-f]{{16}}"
    patterns = [
        rf'writev\(\d+<{folder}/{temporary}>, \[\{{iov_base="new"',
        rf"fsync\(\d+<{folder}/{temporary}>\) += 0",
        rf'rename\w*\(\d+<{folder}>, "{temporary}", \d+<{folder}>, "{name}"(, 0)?\) += 0',
        rf"fsync\(\d+<{folder}>\) += 0",
    ]
    assert len(patterns) == len(lines), lines
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.search(pattern, line), (pattern, line)


REMOVE = SAVE.replace('save(FileKind(sys.argv[2]), "ab" * 32, [b"new"])', 'remove(FileKind(sys.argv[2]), "ab" * 32)')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "synced"), [(FileKind.INDEX, True), (FileKind.SNAPSHOT, True), (KEY, True), (DATA, False)]
)
def test_what_names_others_is_removed_for_good(
    backend: LocalBackend, tmp_path: Path, kind: FileKind, synced: bool
) -> None:
    """The directory is synced after the removal: what was named by the file may go next, however the power fails."""
    backend.save(kind, NAME, [b"old"])
    calls = "trace=unlink,unlinkat,fsync"
    done = traced("-e", calls, log=tmp_path / "log", backend=backend, kind=kind, script=REMOVE)
    assert (0, "") == (done.returncode, done.stderr)
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if backend.location in line]
    assert ["unlink", *["fsync"] * synced] == [call for line in lines for call in re.findall(r"unlink|fsync", line)]


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("writev:error=EIO:when=1", "RepositoryError: can't save FILE: input/output error"),
        ("writev:error=EDQUOT:when=1", "NoSpace: can't save FILE: disk quota exceeded"),
        ("fsync:error=EIO:when=1", "RepositoryError: can't save FILE: input/output error"),
        ("fsync:error=ENOSPC:when=1", "NoSpace: can't save FILE: no space left on device"),
        ("fsync:error=EIO:when=2", "RepositoryError: can't save FILE: input/output error"),
        ("/rename.*:error=EIO:when=1", "RepositoryError: can't save FILE: input/output error"),
        ("fsync:error=ESTALE:when=2", "Unavailable: can't save FILE: stale file handle"),
    ],
)
def test_a_failed_step_leaves_no_file(
    backend: LocalBackend, tmp_path: Path, before: bool, fault: str, error: str
) -> None:
    """Whichever step the disk refuses: a clear error, no temporary file, and no file that wasn't there before."""
    if before:
        backend.save(DATA, NAME, [b"new"])
    expected = files(backend)
    call = fault.partition(":")[0]
    done = traced("-e", f"trace={call}", "-e", f"inject={fault}", log=tmp_path / "log", backend=backend, kind=DATA)
    path = f"{backend.location}/data/ab/{NAME}"
    assert (1, error.replace("FILE", path)) == (done.returncode, done.stderr.strip())
    assert expected == files(backend)


@pytest.mark.slow
def test_a_directory_that_cant_be_synced_is_no_error(backend: LocalBackend, tmp_path: Path) -> None:
    """Some network file systems have no fsync for directories: there a save is as safe as it can be."""
    options = ("-e", "trace=fsync", "-e", "inject=fsync:error=EINVAL:when=2")
    done = traced(*options, log=tmp_path / "log", backend=backend, kind=DATA)
    assert (0, "") == (done.returncode, done.stderr)
    assert b"new" == backend.load(DATA, NAME)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["writev", "fsync", "/rename.*"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_leaves_a_whole_file_or_none(backend: LocalBackend, tmp_path: Path, call: str, number: int) -> None:
    """Killed before any step, the save is either done or has left nothing but what a sweep takes away."""
    options = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    done = traced(*options, log=tmp_path / "log", backend=backend, kind=DATA)
    if call == "fsync" or number == 1:
        assert -9 == done.returncode
    found = list(backend.list(DATA))
    assert found in ([], [(NAME, 3)])
    if found:
        assert b"new" == backend.load(DATA, NAME)
    backend.sweep(now=(tmp_path / "log").stat().st_mtime + 2 * DAY)
    assert [f"data/ab/{NAME}"] * len(found) == files(backend)


@pytest.mark.slow
def test_what_restic_made_can_be_read(tmp_path: Path) -> None:
    """Every file of a repository that restic made is listed with its size, and its content has its name's hash."""
    restic = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if restic is None:
        pytest.skip("restic is not installed")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(os.urandom(3_000_000))
    environ = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "made")}
    for command in (["init"], ["backup", str(tmp_path / "source")]):
        subprocess.run([restic, "--no-cache", *command], env=environ, check=True, capture_output=True, timeout=60)
    backend = LocalBackend(str(tmp_path / "made"))
    kinds = [kind for kind in FileKind if kind is not FileKind.CONFIG]
    found = [(kind, name, size) for kind in kinds for name, size in backend.list(kind)]
    assert {KEY, DATA, FileKind.INDEX, FileKind.SNAPSHOT} == {kind for kind, _, _ in found}
    for kind, name, size in found:
        content = backend.load(kind, name)
        assert (name, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert len(found) + 1 == len(files(backend))
    assert 0 < len(backend.load(FileKind.CONFIG, ""))
