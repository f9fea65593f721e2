"""Whether anybody has a file open for writing, whoever they are."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from symbiont_datad.fsops import lease
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.root import pinned
from symbiont_datad.fsops.write import append_line
from tests.conftest import AsNobody
from tests.support import mapped

HOLDER = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"


def asked(path: Path, patience_s: float = 0.0) -> Held:
    """The answer of a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return held(fd, patience_s)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("mode", "answer"), [("ab", Held.YES), ("r+b", Held.YES), ("rb", Held.NO)])
def test_another_process(tmp_path: Path, mode: str, answer: Held) -> None:
    """Whoever has it open for writing counts, a reader doesn't, and afterwards nobody has it."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    command = [sys.executable, "-c", HOLDER, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert answer is asked(path)
        process.communicate()
    assert Held.NO is asked(path)


def test_a_mapping_counts(tmp_path: Path) -> None:
    """A file that is mapped for writing is held, though its descriptor is closed."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    with mapped(path):
        assert Held.YES is asked(path)
    assert Held.NO is asked(path)


def test_about_files_of_others_nothing_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """The kernel answers the owner and root; for others it is unknown, and never "nobody"."""
    path = open_path / "file"
    path.write_bytes(b"x")
    assert Held.UNKNOWN is as_nobody(lambda: asked(path))


def test_without_leases_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has none (macOS) tells nothing."""
    monkeypatch.setattr(lease, "_SET_LEASE", None)
    (tmp_path / "file").write_bytes(b"")
    assert Held.UNKNOWN is asked(tmp_path / "file")


def test_patience_waits_for_a_file_that_is_closed_again(tmp_path: Path) -> None:
    """Asked with patience, the first moment in which it is closed is enough."""
    path = tmp_path / "file"
    with path.open("ab") as file:
        assert Held.YES is asked(path, 0.005)
        threading.Timer(0.05, file.close).start()
        assert Held.NO is asked(path, 30.0)


def test_asking_disturbs_no_writer(tmp_path: Path) -> None:
    """While a file is asked about again and again, every line that another thread appends arrives, the daemon's own
    (which opens without waiting) too, and no signal ends the process.
    """
    path = tmp_path / "file"
    path.touch()
    seen: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _frame: seen.append(number))
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            asked(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until = time.monotonic() + 0.5
        count = 0
        with pinned(str(tmp_path)) as fd:
            while time.monotonic() < until:
                append_line(fd, "file", b"ours\n")
                with path.open("ab") as file:
                    file.write(b"theirs\n")
                count += 1
    finally:
        done.set()
        asking.join()
        signal.signal(signal.SIGIO, before)
    assert (b"ours\ntheirs\n" * count, []) == (path.read_bytes(), seen)
