"""Carrying out an installation: nobody's work is overwritten or removed unasked, and what fails says what and why."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import DatadError
from symbiont_datad.service import install
from symbiont_datad.service.install import Change, State, carry_out, changes, lingers, removals, run, state
from symbiont_datad.service.process import open_standard_streams
from symbiont_datad.service.stamp import Standing, stamped
from symbiont_datad.service.survey import account
from symbiont_datad.service.target import Account, File, Kind, Machine, Step, Target, Wanted, target

UNIT = stamped("[Service]\nExecStart=a\n")


@pytest.fixture
def service(tmp_path: Path) -> Target:
    """A service of two files below a directory; one of them others use too."""
    at = tmp_path / "etc/datad.service.d"
    return Target(
        Kind.SYSTEM, "datad.service", (File(f"{at}/unit", UNIT), File(f"{at}/shared", UNIT, shared=True)), (), (), "",
        obsolete=(f"{at}/old",), others=f"{tmp_path}/wants/*",
    )  # fmt: skip


def standings(found: list[Change]) -> dict[str, Standing]:
    """How each file stands, by its name."""
    return {Path(one.path).name: one.standing for one in found}


def test_installing_twice_is_installing_once(service: Target) -> None:
    """Mode 0644 whatever the umask; what other settings asked for goes."""
    assert {"unit": Standing.ABSENT, "shared": Standing.ABSENT} == standings(changes(service))
    before = os.umask(0o077)
    try:
        assert [True, True] == [carry_out(one) for one in changes(service)]
    finally:
        os.umask(before)
    unit = Path(service.files[0].path)
    assert (UNIT, 0o644, 0o755) == (unit.read_text(), unit.stat().st_mode & 0o777, unit.parent.stat().st_mode & 0o777)
    assert [False, False] == [carry_out(one) for one in changes(service)]
    Path(service.obsolete[0]).write_text(stamped("[Service]\n"))
    assert [False, False, True] == [carry_out(one) for one in changes(service)]
    assert ["shared", "unit"] == sorted(os.listdir(unit.parent))


def test_what_somebody_has_changed_is_kept(service: Target) -> None:
    """Unless that is forced, and then it lies beside; another version's own file is replaced."""
    unit = Path(service.files[0].path)
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=mine\n")
    Path(service.files[1].path).write_text(stamped("[Service]\nExecStart=older\n"))
    assert {"unit": Standing.CHANGED, "shared": Standing.OURS} == standings(changes(service))
    assert [False, True] == [carry_out(one) for one in changes(service)]
    assert "ExecStart=mine" in unit.read_text()
    assert [True, False] == [carry_out(one, force=[str(unit)]) for one in changes(service)]
    assert (UNIT, True) == (unit.read_text(), "ExecStart=mine" in Path(f"{unit}.old").read_text())


def test_removing_leaves_what_others_need(service: Target, tmp_path: Path) -> None:
    """And what somebody has changed; the directory goes when nothing is left in it."""
    for one in changes(service):
        carry_out(one)
    (tmp_path / "wants").mkdir()
    (tmp_path / "wants/another.service").touch()
    assert {"unit": Standing.SAME} == standings(removals(service))
    (tmp_path / "wants/another.service").unlink()
    unit = Path(service.files[0].path)
    unit.write_text("mine")
    assert [False, True] == [carry_out(one) for one in removals(service)]
    assert ["unit"] == os.listdir(unit.parent)
    assert [True] == [carry_out(one, force=[str(unit)]) for one in removals(service)]
    assert ["unit.old"] == os.listdir(unit.parent)
    carry_out(Change(f"{unit}.old", Standing.SAME, "", "", goes=True))
    assert not unit.parent.exists()


def test_what_can_not_be_written_is_told(service: Target) -> None:
    """With the file's name: a file where a directory belongs, and a directory where a file belongs."""
    unit = Path(service.files[0].path)
    unit.parent.parent.mkdir(parents=True)
    unit.parent.write_bytes(b"")
    with pytest.raises(DatadError, match=r"unit: can't be changed: "):
        carry_out(changes(service)[0])
    unit.parent.unlink()
    unit.mkdir(parents=True)
    with pytest.raises(DatadError, match=r"unit: can't be changed: Is a directory"):
        carry_out(Change(str(unit), Standing.ABSENT, UNIT, None))


def test_commands_run_in_their_order(tmp_path: Path) -> None:
    """Each is told of before; the first that fails and must not ends it, with what it said."""
    told: list[Step] = []
    steps = (
        Step(("sh", "-c", f"echo one >>{tmp_path}/log")),
        Step(("sh", "-c", "exit 1"), may_fail=True),
        Step(("sh", "-c", "echo no room; echo sorry >&2; exit 4")),
        Step(("sh", "-c", f"echo two >>{tmp_path}/log")),
    )
    with pytest.raises(DatadError, match=r"(?s)exit 4 ended with 4\nsorry\nno room\Z"):
        run(steps, told.append)
    assert (3, "one\n") == (len(told), (tmp_path / "log").read_text())
    with pytest.raises(DatadError, match="no-such-command: this machine has no such command"):
        run((Step(("no-such-command",)),))


def test_a_command_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it was; nothing after it runs. One that may fail may not hang either."""
    monkeypatch.setattr(install, "_PATIENCE_S", 0.05)
    told: list[Step] = []
    with pytest.raises(DatadError, match="sleep 60: no end after 0 s"):
        run((Step(("true",)), Step(("sleep", "60"), may_fail=True), Step(("true",))), told.append)
    assert [] == [one.words for one in told if one.words != ("true",)][1:]


def test_a_users_systemd_is_found_without_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`su` sets no XDG_RUNTIME_DIR; what systemd tells is understood, with what it leaves out."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(install, "RUNTIME", str(tmp_path))
    (tmp_path / str(os.geteuid())).mkdir()
    command = tmp_path / "systemctl"
    shown = "LoadState=loaded\\nActiveState=active\\nUnitFileState=\\nMainPID=0\\nStatusText=at $XDG_RUNTIME_DIR\\nodd"
    command.write_text(f'#!/bin/sh\nprintf "{shown}"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    user = replace(AGENT, kind=Kind.USER)
    assert State("active", "disabled", None, f"at {tmp_path}/{os.geteuid()}") == state(user)


def test_who_lingers_is_known_by_a_file(tmp_path: Path) -> None:
    """Nobody of this name does."""
    assert not lingers(f"nobody-{tmp_path.name}")


def test_orphans_are_buried_but_for_our_own() -> None:
    """As process 1 does; those whom somebody else waits for are left to that."""
    code = (
        "import os; from symbiont_datad.service.process import reap_orphans\n"
        "def child():\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(7)\n"
        "    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "    return pid\n"
        "ours = child(); reap_orphans({ours}); print(os.waitstatus_to_exitcode(os.waitpid(ours, 0)[1]))\n"
        "child(); child(); reap_orphans(set())\n"
        "try: os.waitpid(-1, 0)\n"
        "except ChildProcessError: print('none')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (0, "7\nnone\n") == (done.returncode, done.stdout), done.stderr


BOB = Account("bob", 501, "/Users/bob")
AGENT = target(Machine(True, BOB, None, "/opt/datad", ()), Wanted(Kind.AGENT, BOB, data=("/d", "/b", "/o")))


RUNNING = """\
gui/501/ai.symbiont.datad = {
	active count = 1
	state = running

	pid = 4711
	domain = {
		state = other
	}
}
"""


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (RUNNING, State("active", "enabled", 4711)),
        (
            RUNNING.replace("state = running", "state = not running").replace("pid", "last exit code"),
            State("not running", "enabled"),
        ),
        ("gui/501/ai.symbiont.datad = {\n\truns = 2\n}\n", State("unknown", "enabled")),
        (None, State("inactive", "not found")),
    ],
)
def test_launchd_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, expected: State
) -> None:
    """By what `launchctl print` has been seen to print; a service that it does not know makes it fail."""
    (tmp_path / "told").write_text(told or "")
    command = tmp_path / "launchctl"
    command.write_text(f'#!/bin/sh\n[ "$1" = print ] && cat {tmp_path}/told; exit {0 if told else 113}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert expected == state(AGENT)


def test_a_manager_that_is_not_there_can_not_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can one that has nothing to say."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatadError, match="launchctl: this machine has no such command"):
        state(AGENT)
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "systemctl").chmod(0o755)
    with pytest.raises(DatadError, match="systemd can't be asked"):
        state(replace(AGENT, kind=Kind.USER))


def test_a_user_of_the_machine() -> None:
    """By name and by number; one that there isn't is told."""
    assert (0, True) == (account("root").uid, account("root") == account(0))
    with pytest.raises(DatadError, match="nobody-of-that-name: this machine knows no such user"):
        account("nobody-of-that-name")


def test_standard_streams_are_there(tmp_path: Path) -> None:
    """A process that was started without them opens no file of its own in their place."""
    code = (
        "import os; from symbiont_datad.service.process import open_standard_streams; open_standard_streams();"
        f"fd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY); print(1); os.write(fd, b'%d' % fd)"
    )
    shell = 'exec "$0" -c "$1" <&- >&- 2>&-'
    open_standard_streams()  # ours are there, and stay
    python = [sys.executable, code]
    assert 0 == subprocess.run(["sh", "-c", shell, *python], timeout=30).returncode
    assert int((tmp_path / "file").read_bytes()) > 2
