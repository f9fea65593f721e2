"""HTTP of a whole daemon: probes, reloads, tokens, and repairs beside a flood of requests."""

import http.client
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.process.running import running, until
from tests.process.test_life import refused

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


@pytest.mark.slow
def test_a_flood_of_requests_delays_no_repair(tmp_path: Path) -> None:
    """While callers ask as fast as they can, directories that are removed come back, and the median wait stays small.

    A median of a millisecond or two is what a busy machine costs; a repair that had to wait for its turn behind the
    requests would take as long as all of them.
    """
    port = free_port()
    with running(tmp_path, f"http.listen = '127.0.0.1:{port}'\nguard.backoff_after = 100000") as daemon:
        over = threading.Event()
        answered = []

        def flood() -> None:
            while not over.is_set():
                answered.append(get(port, "/livez")[0])

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        waits = []
        sessions = daemon.root / "state/sessions"
        for _ in range(200):
            sessions.rmdir()
            begun = time.monotonic()
            until(sessions.exists)
            waits.append(time.monotonic() - begun)
        over.set()
        for thread in threads:
            thread.join()
        assert {200} == set(answered)
        assert sorted(waits)[len(waits) // 2] < 0.1
        assert 0 == daemon.stop(signal.SIGTERM)
