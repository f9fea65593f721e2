"""`service install`, `status` and `uninstall`, typed on a real machine as root and as a user."""

import json
from collections.abc import Iterator

import pytest

from tests.process.running import until
from tests.system.machine import PROGRAM, Machine, wait_until

pytestmark = pytest.mark.slow

UNIT = "/etc/systemd/system/symbiont-datad.service"
DATA = "/var/lib/symbiont/data"


@pytest.fixture
def ada(machine: Machine) -> Iterator[Machine]:
    """The machine with a user, whose own service manager runs."""
    machine.sh("useradd --create-home --shell /bin/sh ada; loginctl enable-linger ada")
    wait_until(machine, "systemctl is-active user@$(id -u ada)")
    yield machine
    machine.sh(
        "loginctl disable-linger ada; systemctl stop user@$(id -u ada); userdel --remove ada 2>/dev/null || true"
    )


@pytest.fixture
def clean(machine: Machine) -> Iterator[Machine]:
    """The machine; nothing of ours is left on it after."""
    yield machine
    machine.sh(
        "symbiont-datad service uninstall --yes --force >/dev/null;"
        "rm -rf /etc/systemd/system/symbiont-datad* /var/lib/symbiont /etc/symbiont; systemctl daemon-reload"
    )


def test_as_root(clean: Machine) -> None:
    """Installed, well, and removed again: the data stays, and is named."""
    before = clean.sh("find /etc /usr/local | sort")
    dry = clean.run("symbiont-datad", "service", "install", "--dry-run").stdout
    assert f"{UNIT}: new" in dry
    assert "then: systemctl enable symbiont-datad.service" in dry
    assert before == clean.sh("find /etc /usr/local | sort")
    assert 1 == clean.run("symbiont-datad", "service", "install", check=False).returncode  # nobody can be asked
    said = clean.run("symbiont-datad", "service", "install", "--yes")
    assert "symbiont-datad.service runs, and /var/lib/symbiont/data is kept" in said.stdout
    assert "$ systemctl daemon-reload" in said.stderr
    status = clean.run("symbiont-datad", "service", "status").stdout
    assert "symbiont-datad.service: active, enabled, process " in status
    found = json.loads(clean.run("symbiont-datad", "service", "status", "--json").stdout)
    assert (1, "active", "enabled", True) == tuple(found[name] for name in ("schema", "active", "enabled", "healthy"))
    assert {"same"} == {one["standing"] for one in found["files"]}
    clean.sh("touch /var/lib/symbiont/data/state/agents/kept.json")
    said = clean.run("symbiont-datad", "service", "uninstall", "--yes")
    assert "/var/lib/symbiont/data  (the tree)" in said.stdout
    assert clean.exists("/var/lib/symbiont/data/state/agents/kept.json")
    assert [False] * 3 == [clean.exists(path) for path in (UNIT, "/etc/sysusers.d/symbiont-datad.conf", f"{UNIT}.d")]
    assert 3 == clean.run("symbiont-datad", "service", "status", check=False).returncode
    assert "not-found" == clean.show("symbiont-datad.service", "LoadState")
    left = set(clean.sh("find /etc /usr/local | sort").split()) - set(before.split())
    assert set() == {path for path in left if "symbiont-datad" in path}


def test_check_looks_at_the_service(clean: Machine) -> None:
    """All good after an install; a settings file that was not read again, a unit of other settings, a service down."""

    def found() -> dict[str, str]:
        said = json.loads(clean.run("symbiont-datad", "--root", DATA, "check", "--json", check=False).stdout)
        mine = [one for one in said["findings"] if one["probe"] in ("service", "daemon") and one["severity"] != "info"]
        return {one["kind"]: one["remedy"] for one in mine}

    clean.run("symbiont-datad", "service", "install", "--yes")
    until(lambda: {} == found(), 30)
    clean.write("/etc/symbiont/datad.toml", "backup_count = 5\n")
    assert {"settings_not_read"} == set(found())
    clean.sh("systemctl reload symbiont-datad")
    assert {} == found()
    clean.write("/etc/symbiont/datad.toml", "backup_count = 5\nhttp.listen = '127.0.0.1:8126'\n")
    assert {"settings_not_read", "service_outdated"} == set(found())
    clean.run("symbiont-datad", "--root", DATA, "check", "--bundle", "/tmp/report.tar.gz", check=False)
    log = clean.sh("tar -xzOf /tmp/report.tar.gz report/log.jsonl").splitlines()
    assert "settings_reloaded" in {json.loads(line).get("event") for line in log}
    clean.sh("systemctl stop symbiont-datad; systemctl disable symbiont-datad")
    down = found()
    assert {"service_down", "service_disabled", "service_outdated"} == set(down)
    assert "`systemctl start symbiont-datad.service`" in down["service_down"]


def test_a_changed_unit_is_not_overwritten(clean: Machine) -> None:
    """Who edits the unit keeps it: install refuses, uninstall leaves it, --force replaces it and keeps it beside."""
    clean.run("symbiont-datad", "service", "install", "--yes")
    clean.sh(f"echo '# mine' >>{UNIT}")
    mine = clean.sh(f"cat {UNIT}")
    refused = clean.run("symbiont-datad", "service", "install", "--yes", check=False)
    assert (1, True) == (refused.returncode, f"{UNIT}: changed by somebody" in refused.stderr)
    assert "    -# mine" in refused.stdout
    assert mine == clean.sh(f"cat {UNIT}")
    assert "changed by somebody" in clean.run("symbiont-datad", "service", "status").stdout
    clean.run("symbiont-datad", "service", "install", "--yes", "--force")
    assert mine == clean.sh(f"cat {UNIT}.old")
    assert "mine" not in clean.sh(f"cat {UNIT}")
    clean.sh(f"echo '# mine' >>{UNIT}")
    said = clean.run("symbiont-datad", "service", "uninstall", "--yes").stdout
    assert f"{UNIT} was changed by somebody, and stays" in said
    assert clean.exists(UNIT)
    assert "inactive" == clean.show("symbiont-datad.service", "ActiveState")


def test_an_older_unit_is_brought_up_to_date(clean: Machine) -> None:
    """A unit that another version wrote and nobody changed is replaced without a question; the difference is shown."""
    clean.run("symbiont-datad", "service", "install", "--yes")
    code = (
        "from pathlib import Path; from symbiont_datad.service.stamp import stamped, _STAMP;"
        f"f = Path('{UNIT}'); t = _STAMP.sub('', f.read_text()).replace('RestartSec=2', 'RestartSec=9');"
        "f.write_text(stamped(t).replace('symbiont-datad 0', 'symbiont-datad 99', 1))"
    )
    clean.run("/opt/symbiont-datad/bin/python3", "-c", code)
    said = clean.run("symbiont-datad", "service", "install", "--yes").stdout
    assert f"{UNIT}: brought up to date" in said
    assert "    +RestartSec=2" in said
    assert "\nRestartSec=2\n" in clean.sh(f"cat {UNIT}")


def test_settings_that_need_more_than_the_unit_opens(clean: Machine) -> None:
    """A tree, a repository, a server, a file of metrics elsewhere: drop-ins open what they need, and go with that."""
    clean.write(
        "/etc/symbiont/datad.toml",
        "root_data_dir = '/srv/agents/data'\nbackup.repository = '/mnt/big disk/backups'\n"
        "http.listen = '127.0.0.1:8125'\nmetrics.textfile = '/srv/collector/datad.prom'\n",
    )
    clean.run("symbiont-datad", "service", "install", "--yes")
    assert "755 symbiont" == clean.sh("stat -c '%a %U' /srv/agents/data/state/agents").strip()
    wait_until(clean, "test -e '/mnt/big disk/backups/config'")
    fetch = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8125/readyz').read().decode())"
    assert "ok" == clean.run("python3", "-c", fetch).stdout.strip()
    metrics = clean.run("python3", "-c", fetch.replace("readyz", "metrics")).stdout
    wait_until(clean, "test -e /srv/collector/datad.prom")
    for text in (metrics, clean.sh("cat /srv/collector/datad.prom")):
        assert "\nsymbiont_datad_tree_kept 1.0\n" in text
    assert "644" == clean.sh("stat -c %a /srv/collector/datad.prom").strip()
    status = json.loads(clean.run("symbiont-datad", "service", "status", "--json").stdout)
    assert {f"{UNIT}.d/places.conf", f"{UNIT}.d/http.conf"} <= {one["path"] for one in status["files"]}
    clean.run("rm", "/etc/symbiont/datad.toml")
    clean.run("symbiont-datad", "service", "install", "--yes")
    assert not clean.exists(f"{UNIT}.d")
    assert clean.exists("/var/lib/symbiont/data/state")
    clean.sh("rm -rf '/mnt/big disk' /srv/agents /srv/collector")


def test_settings_that_are_wrong_install_nothing(clean: Machine) -> None:
    """Exit code 2, before anything is written. What is there can be removed all the same."""
    clean.write("/etc/symbiont/datad.toml", "backup_count = 'many'\n")
    refused = clean.run("symbiont-datad", "service", "install", "--yes", check=False)
    assert (2, True) == (refused.returncode, "backup_count" in refused.stderr)
    assert not clean.exists(UNIT)
    clean.sh("mv /etc/symbiont/datad.toml /root/; symbiont-datad service install --yes >/dev/null")
    clean.sh("mv /root/datad.toml /etc/symbiont/; symbiont-datad service uninstall --yes")
    assert not clean.exists(UNIT)


def test_a_start_that_fails_is_told(clean: Machine) -> None:
    """What systemd says is handed on, and the files are there to be looked at."""
    clean.write("/etc/symbiont/datad.toml", "enable_encryption = true\n")
    failed = clean.run("symbiont-datad", "service", "install", "--yes", check=False)
    assert (1, True) == (failed.returncode, "systemctl restart symbiont-datad.service ended with" in failed.stderr)
    assert clean.exists(UNIT)


def test_as_a_user(ada: Machine) -> None:
    """A user's own service, without root: installed, well, and removed again."""
    unit = "/home/ada/.config/systemd/user/symbiont-datad.service"
    said = ada.sh("symbiont-datad service install --yes", user="ada")
    assert "symbiont-datad.service runs, and /home/ada/.symbiont/data is kept" in said
    assert f"ExecStart={PROGRAM.replace('/opt/symbiont-datad/bin', '/usr/local/bin')} run\n" in ada.sh(f"cat {unit}")
    ada.sh("rmdir /home/ada/.symbiont/data/state/sessions")
    wait_until(ada, "test -d /home/ada/.symbiont/data/state/sessions")
    assert "symbiont-datad.service: active, enabled, process " in ada.sh("symbiont-datad service status", user="ada")
    systemctl = "XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user"
    ada.sh(
        f"echo 'auto_save_interval = \"never\"' >~/.symbiont/datad.toml; {systemctl} reload symbiont-datad", user="ada"
    )
    assert "settings were refused" in ada.sh(f"{systemctl} show -P StatusText symbiont-datad", user="ada")
    ada.sh("rm ~/.symbiont/datad.toml", user="ada")
    ada.sh("touch ~/.symbiont/data/state/agents/kept.json", user="ada")
    said = ada.sh("symbiont-datad service uninstall --yes", user="ada")
    assert "/home/ada/.symbiont/data  (the tree)" in said
    assert not ada.exists(unit)
    assert ada.exists("/home/ada/.symbiont/data/state/agents/kept.json")
    assert 3 == ada.run("symbiont-datad", "service", "status", check=False, user="ada").returncode


def test_for_a_user(ada: Machine) -> None:
    """As root, for somebody: it runs as that user, sees no other home, and two of them share the template."""
    ada.sh(
        "useradd --create-home --home-dir /srv/bob bob; symbiont-datad service install --for-user bob --yes >/dev/null"
    )
    said = ada.sh("symbiont-datad service install --for-user ada --yes")
    assert "symbiont-datad@ada.service runs, and /home/ada/.symbiont/data is kept" in said
    assert "755 ada" == ada.sh("stat -c '%a %U' /home/ada/.symbiont/data/state/agents").strip()
    assert "755 bob" == ada.sh("stat -c '%a %U' /srv/bob/.symbiont/data/state/agents").strip()
    pid = ada.show("symbiont-datad@ada.service", "MainPID")
    assert "ada" == ada.sh(f"ps -o user= -p {pid}").strip()
    assert [".symbiont"] == ada.sh(f"nsenter -t {pid} -m ls -A /home/ada").split()
    ada.sh("rmdir /home/ada/.symbiont/data/state/sessions")
    wait_until(ada, "test -d /home/ada/.symbiont/data/state/sessions")
    assert "symbiont-datad@bob.service: active" in ada.sh("symbiont-datad service status --for-user bob")
    ada.sh("symbiont-datad service uninstall --for-user bob --yes")
    assert ada.exists("/etc/systemd/system/symbiont-datad@.service")
    until(lambda: ada.show("symbiont-datad@ada.service", "ActiveState") == "active")
    ada.sh("symbiont-datad service uninstall --for-user ada --yes")
    assert not ada.exists("/etc/systemd/system/symbiont-datad@.service")
    assert ada.exists("/home/ada/.symbiont/data")
    assert ada.exists("/srv/bob/.symbiont/data")
    ada.sh("userdel --remove bob 2>/dev/null || true")


def test_what_nobody_may(ada: Machine) -> None:
    """A user can't install for others, root not for itself, and nobody for whom there is not."""
    for words, user in (
        (("--for-user", "ada"), "ada"),
        (("--for-user", "root"), ""),
        (("--for-user", "nobody-here"), ""),
    ):
        refused = ada.run("symbiont-datad", "service", "install", "--yes", *words, check=False, user=user)
        assert (1, "") == (refused.returncode, refused.stdout)
