"""A real Prometheus and a real node_exporter (Debian's packages) read what a real daemon tells."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.service.metrics import METRICS, PREFIX
from tests.jobs.making import context
from tests.process.running import COMMAND, Daemon, running, until
from tests.process.test_http import TOKEN, free_port

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/symbiont-datad.rules.yml"
DASHBOARD = DEPLOY / "grafana/symbiont-datad.json"
STALE = "SymbiontDatadBackupStale"


def program(name: str) -> str:
    """Where a program is."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def promtool(*words: str | Path, given: bytes = b"") -> None:
    """Run it; what it finds wrong fails the test."""
    command = [program("promtool"), *map(str, words)]
    result = subprocess.run(command, input=given, capture_output=True, timeout=60, cwd=RULES.parent)
    assert 0 == result.returncode, result.stdout.decode() + result.stderr.decode()
    assert b"" == result.stderr if words[1] == "metrics" else True, result.stderr


def fetch(url: str, token: str = "") -> bytes:
    """What an address answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=20) as response:
        body: bytes = response.read()
        return body


@contextmanager
def server(log: Path, *command: str) -> Iterator[None]:
    """A process for as long as the block runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


class Prometheus:
    """What one answers over its own interface."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query; empty too while it starts."""
        try:
            found = json.loads(fetch(f"{self._base}/query?{urllib.parse.urlencode({'query': expression})}"))
        except OSError:
            return []
        result: list[Any] = found["data"]["result"]
        return result

    def firing(self, alert: str) -> list[Any]:
        """The alerts of this name that fire now."""
        found = json.loads(fetch(f"{self._base}/alerts"))["data"]["alerts"]
        return [one for one in found if one["labels"]["alertname"] == alert and one["state"] == "firing"]


@contextmanager
def prometheus(base: Path, target: int) -> Iterator[Prometheus]:
    """One that goes by the files in deploy/: the configuration with other addresses and times, the rules without their
    patience."""
    directory = base / "prometheus"
    directory.mkdir()
    (directory / RULES.name).write_text(re.sub(r"\n +for: \w+", "", RULES.read_text()))
    (directory / "token").write_text(TOKEN)
    config = (DEPLOY / "prometheus/prometheus.yml").read_text()
    config = config.replace("/etc/prometheus/symbiont-datad.token", str(directory / "token"))
    config = config.replace("127.0.0.1:8125", f"127.0.0.1:{target}").replace("30s", "1s")
    (directory / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with server(directory / "log", *command):
        yield Prometheus(port)


def settings(port: int, schedule: str, token: Path) -> str:
    """A daemon that answers there and makes backups so often."""
    token.write_text(TOKEN)
    token.chmod(0o600)
    return (
        f"http.listen = '127.0.0.1:{port}'\nhttp.token_file = '{token}'\n"
        f"backup.schedule = '{schedule}'\nlogs.rotate_at = '4KiB'\nlogs.reopened = ['**/*.log']\nstate.settle = '0s'\n"
    )


def fill(root: Path) -> None:
    """Something for every job: a context, one that is damaged, a log that is due, an old cached file, a record."""
    files = {
        "state/agents/0ced98c8-fc4c-4d5f-9a52-4f6a8a7e1c11.json.gz": context(),
        "state/agents/1ced98c8-fc4c-4d5f-9a52-4f6a8a7e1c11.json.gz": b"damaged",
        "logs/agents/a.log": b"a line\n" * 2000,
        "prompts/templates/a.md": b"be kind",
        "prompts/cache/0a.json": b"no json",
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_names_rules_and_their_tests() -> None:
    """promtool finds nothing wrong; each alert is seen to fire, and to be silent, in the rules' own tests."""
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULES.with_name("symbiont-datad.test.yml"))
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tests = RULES.with_name("symbiont-datad.test.yml").read_text()
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tests), alert
        assert re.search(rf"alertname: {alert}\n +exp_alerts: \[\]\n", tests), alert
    promtool("check", "config", "--syntax-only", DEPLOY / "prometheus/prometheus.yml")


def test_a_stale_backup_is_told_of(tmp_path: Path) -> None:
    """A Prometheus that goes by our files scrapes the daemon, with its token. Every query of the dashboard finds data,
    and no alert of a stale backup fires; then backups fail, and it fires; then they are made again, and it ends.
    """
    port, token = free_port(), tmp_path / "token"
    fill(tmp_path / "data")
    with running(tmp_path, settings(port, "1h", token)) as daemon, prometheus(tmp_path, port) as found:
        until(lambda: found.query('up{job="symbiont-datad"} == 1'), 30.0)
        daemon.wait_for_event("job_finished", 60.0, job="backup")
        command(daemon, "verify")
        promtool("check", "metrics", given=fetch(f"http://127.0.0.1:{port}/metrics", TOKEN))
        for expression in queries():
            until(lambda expression=expression: found.query(expression), 30.0)  # type: ignore[misc]
        assert [] == found.firing(STALE)

        repository = tmp_path / "backups"
        repository.rename(tmp_path / "away")
        repository.write_text("a file in its place")
        daemon.reload(settings(port, "1s", token))
        (alert,) = until(lambda: found.firing(STALE), 60.0)
        expected = {"instance": f"127.0.0.1:{port}", "job": "symbiont-datad", "job_name": "backup"}
        assert expected == {name: alert["labels"][name] for name in expected}
        assert "critical" == alert["labels"]["severity"]
        until(lambda: found.firing("SymbiontDatadJobFailing"), 60.0)

        repository.unlink()
        (tmp_path / "away").rename(repository)
        daemon.reload(settings(port, "1h", token))
        command(daemon, "backup")
        until(lambda: not found.firing(STALE) and not found.firing("SymbiontDatadJobFailing"), 60.0)


def command(daemon: Daemon, *words: str) -> None:
    """Run a command of ours on the daemon's tree."""
    line = [*COMMAND, "--config", str(daemon.config), "--root", str(daemon.root), *words]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert result.returncode in (0, 3), result.stdout + result.stderr


def queries() -> list[str]:
    """What the dashboard asks, for all instances and short steps."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [
        one["expr"] for one in dashboard["annotations"]["list"] if "expr" in one and "changes(" not in one["expr"]
    ]
    asked += re.findall(r"label_values\((\w+),", json.dumps(dashboard["templating"]))
    assert len(asked) > 30
    return [one.replace("$instance", ".*").replace("$__rate_interval", "30s") for one in asked]


def test_node_exporter_takes_the_files(tmp_path: Path) -> None:
    """Those of two daemons on one machine, told apart by their trees' names: node_exporter passes both on without an
    error, beside its own."""
    collector = tmp_path / "collector"
    collector.mkdir()
    port = free_port()
    for tree in ("ada", "bob"):
        metrics = f"metrics.textfile = '{collector}/symbiont-datad-{tree}.prom'\nmetrics.tree = '{tree}'"
        with running(tmp_path / tree, metrics):
            file = collector / f"symbiont-datad-{tree}.prom"
            until(file.exists, 30.0)
        promtool("check", "metrics", given=file.read_bytes())
    exporter = [
        program("prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        f"--collector.textfile.directory={collector}",
    ]
    with server(tmp_path / "log", *exporter):
        text = until(lambda: _answered(f"http://127.0.0.1:{port}/metrics"), 30.0)
    assert b"node_textfile_scrape_error 0\n" in text
    for tree in ("ada", "bob"):
        assert f'symbiont_datad_tree_kept{{tree="{tree}"}} 1\n'.encode() in text
    assert b"\nprocess_start_time_seconds " in text


def _answered(url: str) -> bytes:
    try:
        return fetch(url)
    except OSError:
        return b""


def test_the_dashboard_is_one() -> None:
    """What an import needs is there; no two panels have a number or a place in common; queries and units are of metrics
    that there are."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert ("symbiont-datad", "symbiont-datad", None) == (dashboard["uid"], dashboard["title"], dashboard["id"])
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert "${datasource}" == target["datasource"]["uid"]
            names = re.findall(rf"{PREFIX}(\w+)", target["expr"])
            assert names
            assert set(names) <= METRICS.keys(), target["expr"]
    assert {"datasource", "instance"} == {variable["name"] for variable in dashboard["templating"]["list"]}
