"""The machine's own service under a real systemd: ready, repaired, killed, hung, reloaded, stopped, sealed off."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.service.shipped import shipped
from tests.process.running import TREE, until
from tests.system.machine import Machine, wait_until

pytestmark = pytest.mark.slow

UNIT = "symbiont-datad.service"
TREE_AT = "/var/lib/symbiont/data"
DROP_INS = f"/etc/systemd/system/{UNIT}.d"


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Iterator[Machine]:
    """The machine with its own service installed."""
    machine.run("symbiont-datad", "service", "install", "--yes")
    yield machine
    machine.sh("symbiont-datad service uninstall --yes --force >/dev/null; rm -rf /var/lib/symbiont /etc/symbiont")


@pytest.fixture
def service(installed: Machine) -> Iterator[Machine]:
    """The same with the service as it was installed, and running; other settings and drop-ins are gone after."""
    installed.sh(f"systemctl start {UNIT}")
    yield installed
    installed.sh(
        f"rm -rf {DROP_INS} /etc/symbiont/datad.toml /etc/credstore/*; systemctl daemon-reload; systemctl stop {UNIT}"
    )


def drop_in(machine: Machine, text: str) -> None:
    """One more drop-in, in force."""
    machine.write(f"{DROP_INS}/test.conf", text)
    machine.sh(f"systemctl daemon-reload; systemctl restart {UNIT}")


def is_right(machine: Machine) -> bool:
    """Whether every directory of the built-in layout is there with mode 0755 and the service's owner."""
    paths = [f"{TREE_AT}/{path}".rstrip("/") for path in TREE]
    found = machine.run("stat", "-c", "%a %U", *paths, check=False)
    return found.returncode == 0 and {"755 symbiont"} == set(found.stdout.splitlines())


def told(machine: Machine, event: str, **fields: str) -> list[dict[str, Any]]:
    """The entries of an event that this run of the service has written, jobs included."""
    run = f"_SYSTEMD_INVOCATION_ID={machine.show(UNIT, 'InvocationID')}"
    return machine.journal(run, f"SYMBIONT_EVENT={event}", *(f"SYMBIONT_{key.upper()}={fields[key]}" for key in fields))


def pid_of(machine: Machine) -> int:
    """The daemon's process, as the machine counts."""
    return int(machine.show(UNIT, "MainPID"))


def test_start_returns_when_the_tree_is_there(service: Machine) -> None:
    """`systemctl start` on a machine without a tree: when it returns every directory is there, and so it is said."""
    service.sh(f"systemctl stop {UNIT}; rm -r {TREE_AT}; systemctl start {UNIT}")
    assert is_right(service)
    assert service.show(UNIT, "StatusText").startswith(f"keeping {TREE_AT}")
    assert "notify-reload" == service.show(UNIT, "Type")


def test_what_is_removed_comes_back(service: Machine) -> None:
    """From outside its sandbox: a directory, a whole category, a mode, and the root itself."""
    # What `rm -r` has emptied may be filled again before it is removed itself.
    for damage in (
        "rmdir state/sessions",
        "rm -r logs || true",
        "chmod 700 prompts",
        f"mv {TREE_AT} /var/lib/symbiont/old",
    ):
        service.sh(f"cd {TREE_AT}; {damage}")
        until(lambda: is_right(service))
    entry = told(service, "directory_recreated", path="state/sessions")[0]
    assert ("symbiont-datad", UNIT) == (entry["SYSLOG_IDENTIFIER"], entry["_SYSTEMD_UNIT"])


def test_killed_it_is_started_again(service: Machine) -> None:
    """After `kill -9` another process keeps the tree, and what went meanwhile is there again."""
    first = pid_of(service)
    service.sh(f"systemctl kill -s KILL --kill-whom=main {UNIT}; rmdir {TREE_AT}/state/sessions")
    until(lambda: pid_of(service) not in (0, first) and service.show(UNIT, "ActiveState") == "active", 30.0)
    until(lambda: is_right(service))
    assert service.show(UNIT, "NRestarts") != "0"


def test_hung_it_is_started_again(service: Machine) -> None:
    """A daemon that stands still is ended by the watchdog, leaves no core, and another one keeps the tree."""
    drop_in(service, "[Service]\nWatchdogSec=3\n")
    first = pid_of(service)
    service.sh(f"systemctl kill -s STOP --kill-whom=main {UNIT}; rmdir {TREE_AT}/state/sessions")
    until(lambda: pid_of(service) not in (0, first) and service.show(UNIT, "ActiveState") == "active", 60.0)
    until(lambda: is_right(service))
    assert [] == service.sh("find / -xdev -name 'core*' -newer /etc/machine-id -size +1M 2>/dev/null || true").split()


def test_reloads(service: Machine) -> None:
    """`systemctl reload` returns when a good setting is in force; a bad one is refused, and the status says so."""
    first = pid_of(service)
    service.write("/etc/symbiont/datad.toml", '[permissions]\n"logs/audit" = "0o750"\n')
    service.run("systemctl", "reload", UNIT)
    until(lambda: service.sh(f"stat -c %a {TREE_AT}/logs/audit").strip() == "750")
    service.write("/etc/symbiont/datad.toml", "auto_save_interval = 'never'\n")
    service.run("systemctl", "reload", UNIT)
    assert "the new settings were refused: auto_save_interval" in service.show(UNIT, "StatusText")
    assert ("active", first) == (service.show(UNIT, "ActiveState"), pid_of(service))
    entry = told(service, "settings_refused")[-1]
    assert ("3", True) == (entry["PRIORITY"], "auto_save_interval" in entry["SYMBIONT_REASON"])
    service.run("rm", "/etc/symbiont/datad.toml")
    service.run("systemctl", "reload", UNIT)
    assert service.show(UNIT, "StatusText").startswith("keeping")
    assert 2 == len(told(service, "settings_reloaded"))


def test_it_stops_in_time_and_saves_what_changed(service: Machine) -> None:
    """In less than five seconds, with exit code 0, and with a snapshot of what was written last."""
    wait_until(service, f"test $(wc -l </sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs) = 1")
    service.sh(f"echo late >{TREE_AT}/prompts/templates/late.txt")
    begun = time.monotonic()
    service.run("systemctl", "stop", UNIT)
    assert time.monotonic() - begun < 5.0
    assert ("success", "0") == (service.show(UNIT, "Result"), service.show(UNIT, "ExecMainStatus"))
    listed = json.loads(as_service(service, "symbiont-datad versions prompts/templates/late.txt --json"))
    assert 1 == len(listed["versions"])


def as_service(machine: Machine, command: str) -> str:
    """What a command prints as the service's user, with the service's environment."""
    return machine.sh(
        f"export STATE_DIRECTORY=/var/lib/symbiont SYMBIONT_DATAD_ROOT_DATA_DIR={TREE_AT}; {command}", user="symbiont"
    )


def test_every_job_does_its_work_in_the_sandbox(service: Machine) -> None:
    """Sweep, clean, usage, backup, its crew of processes, and verify with a restore: nothing is denied."""
    service.sh(
        f"cd {TREE_AT}/prompts/templates; for i in $(seq 2500); do echo $i $(date +%N) >$i.txt; done;"
        f"head -c 70M /dev/urandom >{TREE_AT}/vector_db/collections/blob; chown -R symbiont:symbiont {TREE_AT}"
    )
    drop_in(
        service,
        "[Service]\nEnvironment=SYMBIONT_DATAD_BACKUP__SCHEDULE=3 SYMBIONT_DATAD_BACKUP__VERIFY_SCHEDULE=2"
        " SYMBIONT_DATAD_BACKUP__READ_ALL_WITHIN=1 SYMBIONT_DATAD_AUTO_SAVE_INTERVAL=2"
        " SYMBIONT_DATAD_SCHEDULE__USAGE_INTERVAL=2 SYMBIONT_DATAD_SCHEDULE__RETENTION_INTERVAL=2\n",
    )
    until(
        lambda: any(int(one["SYMBIONT_FILES"]) > 2500 for one in told(service, "snapshot_created", job="backup")), 90.0
    )
    until(lambda: told(service, "restore_drill_passed"), 90.0)
    for job in ("sweep", "clean", "usage"):
        until(partial(told, service, "job_finished", job=job), 60.0)
    for event in ("job_failed", "repository_damaged", "restore_drill_failed", "ledger_failed", "repair_failed"):
        assert [] == told(service, event)


def test_what_it_can_not_do(service: Machine) -> None:
    """As the daemon's own process sees it: no network, nothing to write but its state, no rights."""
    pid = pid_of(service)
    status = dict(line.split(":\t", 1) for line in service.sh(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert ("1", "2", "0" * 16) == (status["NoNewPrivs"], status["Seccomp"], status["CapBnd"])
    inside = f"nsenter -t {pid} -m"
    names = [line.split(":")[0].strip() for line in service.sh(f"cat /proc/{pid}/net/dev").splitlines()[2:]]
    assert ["lo"] == names
    for path in ("/etc", "/usr", "/var/lib", "/home"):
        assert service.run(*f"{inside} touch {path}/x".split(), check=False).returncode != 0
    assert service.run(*f"{inside} touch /var/lib/symbiont/x".split()).returncode == 0
    limits = service.sh(f"cat /proc/{pid}/limits")
    assert "Max core file size        0" in limits
    assert "200" == service.sh(f"cat /proc/{pid}/oom_score_adj").strip()


def test_open_files_of_others_are_known_to_be_unknown(service: Machine) -> None:
    """`keep_if_open` sees what its own user has open, and says how many processes it can't look into."""
    pid = pid_of(service)
    entered = f"nsenter -t {pid} -m runuser -u symbiont -- /opt/symbiont-datad/bin/python3 -c"
    code = "from symbiont_datad.fsops.opened import open_files; print(open_files('/var/lib/symbiont/data').unseen)"
    assert "processes of other users" in service.sh(f'{entered} "{code}"')


def test_the_journal_explains_each_event(service: Machine) -> None:
    """`journalctl -x` says what an event means and what to do; every event of the daemon has an explanation."""
    service.sh(f"rmdir {TREE_AT}/state/sessions")
    until(lambda: told(service, "directory_recreated"))
    said = service.sh("journalctl -x --no-pager -n 1 SYMBIONT_EVENT=directory_recreated")
    assert "A declared directory had gone and was made again." in said
    assert "symbiont-datad restore" in said
    listed = service.sh("journalctl --list-catalog")
    entries = [entry for entry in service.journal(f"_SYSTEMD_UNIT={UNIT}") if "SYMBIONT_EVENT" in entry]
    ids = {entry["MESSAGE_ID"] for entry in entries}
    assert len(ids) > 5
    assert all(one in listed for one in ids)


SECRET = "correct-horse-battery-staple-7"


def test_a_password_by_credential(service: Machine) -> None:
    """A file in /etc/credstore is the repository's password, and is found nowhere else: in no log, no field of the
    journal, no command line, no environment, no file of the daemon."""
    service.sh(f"systemctl stop {UNIT}; rm -rf /var/lib/symbiont/backups /var/lib/symbiont/datad")
    service.write("/etc/credstore/symbiont_datad_backup__password", SECRET, 0o400)
    service.write("/root/pw", SECRET, 0o400)
    service.run("systemctl", "start", UNIT)
    until(lambda: told(service, "snapshot_created", job="backup"), 60.0)
    opened = "SYMBIONT_DATAD_BACKUP__PASSWORD_FILE=/root/pw SYMBIONT_DATAD_ROOT_DATA_DIR=/var/lib/symbiont/data"
    where = "STATE_DIRECTORY=/var/lib/symbiont"
    assert "backup" in service.sh(f"{where} {opened} symbiont-datad snapshots")
    wrong = service.run(
        "sh", "-c", f"{where} SYMBIONT_DATAD_ROOT_DATA_DIR={TREE_AT} symbiont-datad snapshots", check=False
    )
    assert 12 == wrong.returncode
    service.sh(f"rmdir {TREE_AT}/logs/agents; systemctl reload {UNIT}")
    service.run("rm", "/root/pw")
    pid = pid_of(service)
    assert SECRET not in service.sh("ps -eww -o args; ps eww -A")
    assert SECRET not in service.sh(f"tr '\\0' '\\n' </proc/{pid}/environ")
    assert SECRET not in json.dumps(service.journal("-b"))
    assert SECRET not in service.sh(f"systemctl show {UNIT}; systemctl status {UNIT}")
    assert "" == service.sh(f"grep -rlF '{SECRET}' /var/lib/symbiont /var/log /etc/systemd /run/symbiont-datad || true")


def test_a_bucket_with_the_drop_in_for_the_network(service: Machine) -> None:
    """The settings name a bucket: `service install` opens the network, and what opens a bucket comes as credentials."""
    program = Path(sys.executable).parent / "rclone"
    if not program.exists():
        pytest.skip("rclone is not installed")
    shutil.copy(program, f"/proc/{service.leader}/root/usr/local/bin/rclone")
    key, secret, port = "an-access-key-id", "a-secret-access-key-of-24", 9000
    service.run("mkdir", "-p", "/srv/s3/bucket")
    serve = f"rclone serve s3 --auth-key {key},{secret} --addr 127.0.0.1:{port} --vfs-cache-mode writes /srv/s3"
    service.run("systemd-run", "--unit=s3", *serve.split())
    service.write("/etc/credstore/aws_access_key_id", key, 0o400)
    service.write("/etc/credstore/aws_secret_access_key", secret, 0o400)
    service.write("/etc/symbiont/datad.toml", "backup.repository = 's3://bucket/agents'\n")
    service.write(
        f"{DROP_INS}/test.conf",
        f"[Service]\nEnvironment=AWS_ENDPOINT_URL=http://127.0.0.1:{port} AWS_REGION=us-east-1\n"
        "Environment=SYMBIONT_DATAD_BACKUP__SCHEDULE=5 SYMBIONT_DATAD_BACKUP__VERIFY_SCHEDULE=3\n",
    )
    said = service.run("symbiont-datad", "service", "install", "--yes").stdout
    assert f"{DROP_INS}/network.conf: new" in said
    until(lambda: told(service, "snapshot_created", job="backup"), 90.0)
    until(lambda: told(service, "repository_verified"), 90.0)
    assert "s3://bucket/agents" == told(service, "repository_created")[0]["SYMBIONT_PATH"]
    failed = {entry["SYMBIONT_JOB"] for entry in told(service, "job_failed")}
    assert {"verify"} >= failed  # it may be due before the first backup has made the repository
    assert secret not in json.dumps(service.journal(f"_SYSTEMD_UNIT={UNIT}"))
    service.run("systemctl", "stop", "s3")


def test_with_a_user_that_is_lent(service: Machine) -> None:
    """The drop-in for DynamicUser: a fresh machine without our user, and the tree is kept all the same."""
    service.sh(f"systemctl stop {UNIT}; mv /var/lib/symbiont /root/; userdel symbiont")
    drop_in(service, shipped("systemd/drop-ins/dynamic-user.conf"))
    lent = range(61184, 65520)  # systemd.exec(5), "DynamicUser="
    assert int(service.sh(f"ps -o uid= -p {pid_of(service)}")) in lent
    service.sh("rmdir /var/lib/private/symbiont/data/state/sessions")
    wait_until(service, "test -d /var/lib/private/symbiont/data/state/sessions")
    until(lambda: told(service, "snapshot_created", job="backup"), 60.0)
    service.sh(f"systemctl stop {UNIT}; rm -rf /var/lib/private/symbiont /var/lib/symbiont; rm -r {DROP_INS}")
    service.sh("rm -r /root/symbiont; symbiont-datad service install --yes")


def test_on_a_volume(service: Machine) -> None:
    """The drop-in for a volume: the service comes with the mount and ends before it goes; what is below stays empty."""
    service.sh(f"systemctl stop {UNIT}; rm -rf /var/lib/symbiont")
    uid, gid = service.sh("id -u symbiont; id -g symbiont").split()
    service.write(
        "/etc/systemd/system/var-lib-symbiont.mount",
        f"[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/var/lib/symbiont\nOptions=mode=0750,uid={uid},gid={gid}\n",
    )
    service.write(f"{DROP_INS}/volume.conf", shipped("systemd/drop-ins/volume.conf"))
    service.sh(f"systemctl daemon-reload; systemctl reenable {UNIT}; systemctl start var-lib-symbiont.mount")
    until(lambda: service.show(UNIT, "ActiveState") == "active")
    assert is_right(service)
    service.run("systemctl", "stop", "var-lib-symbiont.mount")
    assert "inactive" == service.show(UNIT, "ActiveState")
    assert "" == service.sh("ls /var/lib/symbiont")
    service.run("systemctl", "start", "var-lib-symbiont.mount")
    until(lambda: service.show(UNIT, "ActiveState") == "active")
    until(lambda: is_right(service))
    service.sh(f"rm {DROP_INS}/volume.conf; systemctl daemon-reload; systemctl stop {UNIT} var-lib-symbiont.mount")
    service.sh("rm -r /etc/systemd/system/var-lib-symbiont.mount /etc/systemd/system/var-lib-symbiont.mount.wants")


def test_a_volume_that_is_missing_is_missed(service: Machine) -> None:
    """`guard.require_mount` in the sandbox: that the state directory is a mount there is not taken for a volume."""
    drop_in(service, "[Service]\nEnvironment=SYMBIONT_DATAD_GUARD__REQUIRE_MOUNT=/var/lib/symbiont\n")
    assert "the tree is held" in service.show(UNIT, "StatusText")
    found = as_service_exit(service, "symbiont-datad health --ready")
    assert 1 == found


def as_service_exit(machine: Machine, command: str) -> int:
    """The exit code of a command as the service's user."""
    return int(as_service(machine, f"{command} 2>/dev/null || echo $?").strip() or 0)
