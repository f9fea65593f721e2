"""HTTP of a whole daemon: probes, reloads, tokens, and repairs beside a flood of requests."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.process.running import running, until
from tests.process.test_life import refused

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-32-visible-characters"


def free_port() -> int:
    """A port of the loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str, method: str = "GET", **fields: str) -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=fields)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_probes_and_reloads(tmp_path: Path) -> None:
    """Three paths are answered and no other; a reload moves the server, asks for a token, and takes it away."""
    one, two = free_port(), free_port()
    with running(tmp_path, f"http.listen = '127.0.0.1:{one}'") as daemon:
        for path in ("/livez", "/readyz", "/startupz"):
            assert (200, "ok\n") == get(one, path)
        assert [404, 404, 405] == [get(one, "/livez/")[0], get(one, "/state/agents")[0], get(one, "/livez", "POST")[0]]
        token = tmp_path / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        daemon.reload(f"http.listen = '127.0.0.1:{two}'\nhttp.token_file = '{token}'")
        with pytest.raises(OSError, match="refused"):
            get(one, "/livez")
        assert (401, 200) == (get(two, "/livez")[0], get(two, "/livez", Authorization=f"Bearer {TOKEN}")[0])
        daemon.reload("")
        with pytest.raises(OSError, match="refused"):
            get(two, "/livez")
        assert 0 == daemon.stop()
    assert TOKEN not in daemon.log.read_text() + daemon.errors.read_text()


def test_a_tree_that_is_held_is_not_ready(tmp_path: Path) -> None:
    """It lives and is not ready, and the answer names no path."""
    port = free_port()
    with running(tmp_path, f"guard.require_mount = '{tmp_path}/volume'\nhttp.listen = '127.0.0.1:{port}'"):
        why = (503, "the tree is not ready yet\n")
        assert [(200, "ok\n"), why, why] == [get(port, path) for path in ("/livez", "/readyz", "/startupz")]


def test_an_address_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    """The tree is kept all the same; the log says so once, and the server is there when the address is free."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running(tmp_path, f"http.listen = '127.0.0.1:{port}'", environ={"WATCHDOG_USEC": "600000"}) as daemon:
            daemon.wait_for_event("http_failed")
            assert daemon.is_right()
            taken.close()
            daemon.wait_for_event("http_started")
            assert (200, "ok\n") == get(port, "/livez")
            assert 1 == len(daemon.events("http_failed"))


def test_an_address_for_others_needs_a_token(tmp_path: Path) -> None:
    """Without one the daemon does not start: exit code 2, and nothing is made."""
    result = refused(tmp_path / "files", tmp_path / "data", "http.listen = '0.0.0.0:8125'")
    assert (2, True) == (result.returncode, "http.listen" in result.stderr)
    assert not (tmp_path / "data").exists()


def test_metrics_are_for_those_who_may(tmp_path: Path) -> None:
    """They are there with the token, and nothing of them without; they name no path of the tree."""
    port, token = free_port(), tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    agent = tmp_path / "data/state/agents/0ced98c8-fc4c-4d5f-9a52-4f6a8a7e1c11.json"
    agent.parent.mkdir(parents=True)
    agent.write_text("damaged")
    with running(tmp_path, f"http.listen = '127.0.0.1:{port}'\nhttp.token_file = '{token}'") as daemon:
        assert [(401, "Unauthorized\n")] * 2 == [
            get(port, "/metrics"),
            get(port, "/metrics", Authorization="Bearer no"),
        ]
        (daemon.root / "logs/audit").rmdir()
        daemon.wait_for_event("directory_recreated")
        status, text = get(port, "/metrics", Authorization=f"Bearer {TOKEN}")
    assert 200 == status
    assert "\nsymbiont_datad_tree_kept 1.0\n" in text
    assert "0ced98c8" not in text
    assert str(tmp_path) not in text
    assert "audit" not in text


@pytest.mark.slow
def test_a_flood_of_requests_delays_no_repair(tmp_path: Path) -> None:
    """While callers ask for the metrics a thousand times a second, and others are slow, half open, wrong, or send ten
    megabytes of noise, directories that are removed come back, and the median wait stays small. All hear a status and
    nothing else, and the daemon holds no more memory and descriptors after it.

    A median of a millisecond or two is what a busy machine costs; a repair that had to wait for its turn behind the
    requests would take as long as all of them. $DATAD_FLOOD_S is how long it lasts.
    """
    port, seconds = free_port(), float(os.environ.get("DATAD_FLOOD_S", "3"))
    with running(tmp_path, f"http.listen = '127.0.0.1:{port}'\nguard.backoff_after = 100000") as daemon:
        until(lambda: not daemon.children(), 60.0)
        heard = flood(port, 1.0)
        memory, descriptors = anonymous_kib(daemon.pid), len(os.listdir(f"/proc/{daemon.pid}/fd"))
        over = threading.Event()
        waits = []

        def remove() -> None:
            sessions = daemon.root / "state/sessions"
            while not over.is_set():
                sessions.rmdir()
                begun = time.monotonic()
                until(sessions.exists)
                waits.append(time.monotonic() - begun)

        thread = threading.Thread(target=remove)
        thread.start()
        try:
            heard = flood(port, seconds)
        finally:
            over.set()
            thread.join()
        assert {"HTTP/1.1 200 OK"} == set(heard["good"]) - {"no answer"}
        refusals = {"HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 404", "HTTP/1.1 405", "HTTP/1.1 414", "HTTP/1.1 431"}
        assert {line[:12] for line in heard["bad"]} <= refusals | {"HTTP/1.1 408", "HTTP/1.1 505", "no answer"}
        assert len(refusals & {line[:12] for line in heard["bad"]}) > 1
        assert sorted(waits)[len(waits) // 2] < 0.1
        assert (200, "ok\n") == get(port, "/livez")
        until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= descriptors + 2, 20.0)
        assert anonymous_kib(daemon.pid) - memory < 8 << 10
        assert [] == daemon.events("metrics_failed")
        assert 0 == daemon.stop(signal.SIGTERM)


def flood(port: int, seconds: float) -> dict[str, dict[str, int]]:
    """What callers of all kinds have heard (tests/process/callers.py)."""
    words = [sys.executable, "-m", "tests.process.callers", str(port), str(seconds), "1000", "--evil"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 120)
    assert 0 == done.returncode, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def anonymous_kib(pid: int) -> int:
    """The part of a process's memory that no file backs."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1])
