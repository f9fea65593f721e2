"""Secrets that were planted turn up nowhere but where they were planted: no log, event, status, file, or `ps` line."""

import base64
import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from symbiont_datad.formats.age import new_identity
from tests.process.running import COMMAND, Daemon, running, until
from tests.process.test_http import free_port, get


def forms(secret: str) -> list[bytes]:
    """How a secret may be spelled where it leaks."""
    raw = secret.encode()
    return [
        raw,
        base64.b64encode(raw)[:-4],
        raw.hex().encode(),
        quote(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
    ]


def leaks(where: str, data: bytes, planted: Mapping[str, str]) -> list[str]:
    """Which secrets are in something."""
    return [f"{name} in {where}" for name, secret in planted.items() if any(form in data for form in forms(secret))]


def leaks_below(base: Path, planted: Mapping[str, str], *known: Path) -> list[str]:
    """Which secrets are in files, or names of files, below a directory; `known` are those that hold them rightly."""
    found = []
    for folder, _, names in os.walk(base):
        for name in names:
            path = Path(folder, name)
            found += leaks(f"the name {path}", os.fsencode(path), planted)
            if path not in known and path.is_file() and not path.is_symlink():
                found += leaks(str(path), path.read_bytes(), planted)
    return found


@contextmanager
def watching_ps(pid: int) -> Iterator[set[bytes]]:
    """The command lines of a process, and of all that it starts while the block runs."""
    seen, over = set[bytes](), threading.Event()

    def look(one: int) -> None:
        with suppress(OSError):
            seen.add(Path(f"/proc/{one}/cmdline").read_bytes())
            for task in os.listdir(f"/proc/{one}/task"):
                for child in Path(f"/proc/{one}/task/{task}/children").read_text().split():
                    look(int(child))

    def loop() -> None:
        while not over.wait(0.005):
            look(pid)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def asked(daemon: Daemon, environ: Mapping[str, str], *arguments: str) -> bytes:
    """What a command says, on both streams."""
    command = [*COMMAND, "--config", str(daemon.config), "--root", str(daemon.root), *arguments]
    given = {**os.environ, "HOME": str(daemon.root.parent), **environ}
    done = subprocess.run(command, env=given, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.stdout + done.stderr


COMMANDS = (
    ("status",), ("status", "--json"), ("check", "--json"), ("events", "--json"), ("config", "show"),
    ("config", "check"), ("config", "show", "--json"), ("snapshots", "--json"), ("repository", "key", "list"),
    ("key", "show-recipient"), ("sweep", "--json"), ("backup", "--json"), ("verify", "--json"), ("prune", "--json"),
    ("service", "print"), ("health",), ("vectors", "--json"), ("templates",),
)  # fmt: skip


@pytest.mark.slow
def test_planted_secrets_stay_where_they_are(tmp_path: Path) -> None:
    """Password, key and token, through a day of a daemon: backups, commands, refused settings, a wrong password."""
    planted = {
        "the password": f"pass word é{secrets.token_hex(12)}",
        "the token": secrets.token_urlsafe(24),
        "the key": new_identity(),
    }
    key = tmp_path / "datad.key"
    key.write_text(f"{planted['the key']}\n")
    key.chmod(0o600)
    password, token = "SYMBIONT_DATAD_BACKUP__PASSWORD", "SYMBIONT_DATAD_HTTP__TOKEN"
    environ = {password: planted["the password"], token: planted["the token"]}
    port = free_port()
    settings = (
        f"auto_save_interval = 1\nenable_encryption = true\nencryption.key_file = '{key}'\n"
        f"http.listen = '127.0.0.1:{port}'\nbackup.schedule = '2s'\nlogging.level = 'debug'\n"
        "state.settle = '0s'\n"
    )
    outputs: dict[str, bytes] = {}
    with running(tmp_path, settings, environ=environ) as daemon, watching_ps(daemon.pid) as lines:
        daemon.wait_for_event("snapshot_created", job="backup")
        (daemon.root / "state/sessions/s.json").write_text("{}")
        (daemon.root / "state/agents/not-a-context.json").write_text("{")
        daemon.wait_for_event("snapshot_created", job="sweep")
        wrong = {"Authorization": f"Bearer {planted['the token']}x"}
        right = {"Authorization": f"Bearer {planted['the token']}"}
        for path in ("/livez", "/", f"/{quote(planted['the token'])}"):
            for fields in (wrong, right, {}):
                outputs[f"{path} {fields.keys()}"] = str(get(port, path, **fields)).encode()
        for command in COMMANDS:
            outputs[" ".join(command)] = asked(daemon, environ, *command)
        for name in environ:  # values that can't be used are named by their settings
            outputs[f"bad {name}"] = asked(daemon, {**environ, name: environ[name] + "\x01\n"}, "config", "check")
        outputs["wrong password"] = asked(daemon, {**environ, password: planted["the token"]}, "snapshots")
        daemon.reload(settings + "auto_save_interval = 'never'\n")
        daemon.reload(settings.replace(str(key), str(tmp_path / "no.key")))
        daemon.wait_for_event("settings_refused", count=2)
        outputs["notify"] = b"\n".join(daemon.manager.datagrams)
        assert until(lambda: any(b"child\0backup" in line for line in lines))
        assert 0 == daemon.stop()
    found = leaks_below(tmp_path, planted, key)
    for where, data in outputs.items():
        found += leaks(where, data, planted)
    for line in lines:
        found += leaks(f"ps: {line!r}", line, planted)
    assert [] == found
    assert all(outputs[" ".join(command)] for command in COMMANDS if command != ("health",))


class _Refusing(BaseHTTPRequestHandler):
    """A store that refuses everything, and repeats in its answer what it was sent."""

    def _refuse(self) -> None:
        body = f"<Error><Code>AccessDenied</Code><Message>{self.path} {self.headers}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _refuse  # noqa: N815  # http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing."""


@contextmanager
def refusing() -> Iterator[int]:
    """The port of such a store."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_keys_of_a_cloud_stay_where_they_are(tmp_path: Path) -> None:
    """Those of an object store that refuses them, and repeats what it was sent: failures don't tell them."""
    with refusing() as port:
        _refused_by_a_cloud(tmp_path, port)


def _refused_by_a_cloud(tmp_path: Path, port: int) -> None:
    planted = {"the secret key": secrets.token_urlsafe(30), "the session token": secrets.token_urlsafe(40)}
    environ = {
        "AWS_ACCESS_KEY_ID": "AAAAAAAAAAAA",
        "AWS_SECRET_ACCESS_KEY": planted["the secret key"],
        "AWS_SESSION_TOKEN": planted["the session token"],
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "SYMBIONT_DATAD_BACKUP__REPOSITORY": "s3://bucket/prefix",
    }
    outputs: dict[str, bytes] = {}
    with running(tmp_path, "logging.level = 'debug'\n", environ=environ) as daemon, watching_ps(daemon.pid) as lines:
        daemon.wait_for_event("job_failed", 60.0, job="backup")
        for command in (("status", "--json"), ("config", "show", "--json"), ("snapshots",), ("check", "--json")):
            outputs[" ".join(command)] = asked(daemon, environ, *command)
        outputs["notify"] = b"\n".join(daemon.manager.datagrams)
        assert 0 == daemon.stop()
    found = leaks_below(tmp_path, planted)
    for where, data in outputs.items():
        found += leaks(where, data, planted)
    for line in lines:
        found += leaks(f"ps: {line!r}", line, planted)
    assert [] == found


@pytest.mark.parametrize("leak", [str, lambda text: base64.b64encode(text.encode()).decode(), quote])
def test_the_search_finds_what_was_planted(tmp_path: Path, leak: "type[str]") -> None:
    """Otherwise the tests above would prove nothing."""
    planted = {"it": "pass word é" + "0123456789abcdef"}
    (tmp_path / "log").write_text(f"before {leak(planted['it'])} after")
    assert [f"it in {tmp_path / 'log'}"] == leaks_below(tmp_path, planted)
    assert [] == leaks_below(tmp_path, planted, tmp_path / "log")
