"""What installing means on each kind of machine. Pure: a machine goes in, files and commands come out."""

import plistlib
from dataclasses import replace

import pytest

from symbiont_datad.errors import DatadError
from symbiont_datad.service.stamp import Standing, stamped, standing
from symbiont_datad.service.target import Account, Kind, Machine, Target, Wanted, kind_for, target
from symbiont_datad.service.unit import Places

ROOT = Account("root", 0, "/root")
ADA = Account("ada", 1000, "/home/ada")
BOB = Account("bob", 501, "/Users/bob")
PROGRAM = "/opt/symbiont-datad/bin/symbiont-datad"
LINUX = Machine(False, ROOT, 257, PROGRAM, ("/opt/symbiont-datad", "/usr"))
MACOS = Machine(True, ROOT, None, PROGRAM, ())
DATA = ("/d/data", "/d/backups", "/d/datad")


def steps(found: Target) -> list[str]:
    """The commands that start it, as typed."""
    return [" ".join(step.words) for step in found.start]


def paths(found: Target) -> list[str]:
    """Its files."""
    return [file.path for file in found.files]


@pytest.mark.parametrize(
    ("machine", "for_user", "expected"),
    [
        (LINUX, False, Kind.SYSTEM),
        (LINUX, True, Kind.INSTANCE),
        (replace(LINUX, me=ADA), False, Kind.USER),
        (MACOS, True, Kind.DAEMON),
        (replace(MACOS, me=BOB), False, Kind.AGENT),
    ],
)
def test_the_kind_that_fits(machine: Machine, for_user: bool, expected: Kind) -> None:
    """The platform, the user and --for-user tell."""
    assert expected is kind_for(machine, for_user)


@pytest.mark.parametrize(
    ("machine", "for_user", "why"),
    [
        (replace(LINUX, me=ADA), True, "needs root"),
        (replace(LINUX, systemd=None), False, "neither by systemd nor by launchd"),
        (MACOS, False, "--for-user NAME is needed"),
    ],
)
def test_no_kind_fits(machine: Machine, for_user: bool, why: str) -> None:
    """It is said why, and what to do."""
    with pytest.raises(DatadError, match=why):
        kind_for(machine, for_user)


def test_for_the_machine() -> None:
    """The unit, its user and directories, the catalogue; then everything is put in force, in order."""
    found = target(LINUX, Wanted(Kind.SYSTEM, ROOT, data=DATA))
    assert [
        "/etc/systemd/system/symbiont-datad.service",
        "/etc/sysusers.d/symbiont-datad.conf",
        "/etc/tmpfiles.d/symbiont-datad.conf",
        "/usr/local/lib/systemd/catalog/symbiont-datad.catalog",
    ] == paths(found)
    assert [
        "systemd-sysusers /etc/sysusers.d/symbiont-datad.conf",
        "systemd-tmpfiles --create /etc/tmpfiles.d/symbiont-datad.conf",
        "journalctl --update-catalog",
        "systemctl daemon-reload",
        "systemctl enable symbiont-datad.service",
        "systemctl restart symbiont-datad.service",
    ] == steps(found)
    for file in found.files:
        assert Standing.SAME is standing(file.content, stamped(file.content.partition("\n")[2]))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(Kind.SYSTEM, ROOT), []),
        (Wanted(Kind.SYSTEM, ROOT, network=True), ["network"]),
        (Wanted(Kind.SYSTEM, ROOT, loopback=True), ["http"]),
        (Wanted(Kind.SYSTEM, ROOT, network=True, loopback=True), ["network"]),
        (Wanted(Kind.SYSTEM, ROOT, Places((("A", "b"),)), loopback=True), ["places", "http"]),
        (Wanted(Kind.USER, ADA, Places((("A", "b"),)), network=True), ["places"]),
    ],
)
def test_drop_ins_are_for_what_the_settings_ask(wanted: Wanted, expected: list[str]) -> None:
    """Those that are not asked for are named as obsolete, so that an earlier install's go."""
    found = target(replace(LINUX, me=wanted.account), wanted)
    names = [path.rpartition("/")[2].removesuffix(".conf") for path in paths(found) if ".service.d/" in path]
    assert expected == names
    obsolete = [path.rpartition("/")[2].removesuffix(".conf") for path in found.obsolete]
    assert sorted(["places", "network", "http"]) == sorted([*expected, *obsolete])


def test_for_a_user_of_the_machine() -> None:
    """What is missing in the home directory is made by its owner."""
    found = target(LINUX, Wanted(Kind.INSTANCE, ADA, missing=("/home/ada/.symbiont",)))
    assert "symbiont-datad@ada.service" == found.name
    assert "/etc/systemd/system/symbiont-datad@.service" == paths(found)[0]
    assert "runuser -u ada -- mkdir -p /home/ada/.symbiont" == steps(found)[0]
    assert {True} == {file.shared for file in found.files}


def test_a_users_own() -> None:
    """Everything is the user's: no command needs more rights, no file is elsewhere."""
    found = target(replace(LINUX, me=ADA), Wanted(Kind.USER, ADA))
    assert ["/home/ada/.config/systemd/user/symbiont-datad.service"] == paths(found)
    assert all(step.startswith("systemctl --user ") for step in steps(found))


@pytest.mark.parametrize(
    ("program", "needs"),
    [("/root/.local/bin/symbiont-datad", ()), ("/home/ada/v/bin/symbiont-datad", ()), (PROGRAM, ("/root/.pyenv/x",))],
)
@pytest.mark.parametrize("kind", [Kind.SYSTEM, Kind.INSTANCE, Kind.DAEMON])
def test_a_program_that_others_can_not_see(kind: Kind, program: str, needs: tuple[str, ...]) -> None:
    """A service of the machine does not start from somebody's home directory; that is said before, and how to do it."""
    machine = replace(LINUX, program=program, needs=needs)
    with pytest.raises(DatadError, match="python3 -m venv"):
        target(machine, Wanted(kind, ADA))


def test_an_agent_of_launchd() -> None:
    """Absolute paths where the shipped one needs a shell; it is loaded anew each time."""
    found = target(replace(MACOS, me=BOB), Wanted(Kind.AGENT, BOB, Places((("SYMBIONT_DATAD_CONFIG", "/x.toml"),))))
    assert ["/Users/bob/Library/LaunchAgents/ai.symbiont.datad.plist"] == paths(found)
    plist = plistlib.loads(found.files[0].content.encode())
    assert [PROGRAM, "run"] == plist["ProgramArguments"]
    assert "/Users/bob/Library/Logs/symbiont-datad.log" == plist["StandardErrorPath"] == plist["StandardOutPath"]
    assert {"SYMBIONT_DATAD_CONFIG": "/x.toml"} == plist["EnvironmentVariables"]
    assert [
        "launchctl bootout gui/501/ai.symbiont.datad",
        "launchctl enable gui/501/ai.symbiont.datad",
        "launchctl bootstrap gui/501 /Users/bob/Library/LaunchAgents/ai.symbiont.datad.plist",
    ] == steps(found)
    assert [True, False, False] == [step.may_fail for step in found.start]


def test_a_daemon_of_launchd() -> None:
    """For one user, as that user, with that user's home, and a label of its own."""
    found = target(MACOS, Wanted(Kind.DAEMON, BOB))
    assert ["/Library/LaunchDaemons/ai.symbiont.datad.bob.plist"] == paths(found)
    plist = plistlib.loads(found.files[0].content.encode())
    assert ("bob", {"HOME": "/Users/bob"}) == (plist["UserName"], plist["EnvironmentVariables"])
    assert plist["Label"] == "ai.symbiont.datad.bob" == found.name


def test_directories_that_are_missing_are_made_first() -> None:
    """By the machine for its own service, as its user; a user whose name no unit can have gets none."""
    wanted = Wanted(Kind.SYSTEM, ROOT, missing=("/srv/agents",), data=DATA)
    assert "install -d -o symbiont -g symbiont -m 0750 /srv/agents" in steps(target(LINUX, wanted))
    with pytest.raises(DatadError):
        target(LINUX, Wanted(Kind.INSTANCE, Account("a/b", 1001, "/home/a"), data=DATA))
