"""S3 servers on loopback, and a server that writes down what it is asked."""

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BUCKET = "bucket"
KEY_ID, SECRET = "AAAAAAAAAAAA", "BBBBBBBBBBBB"


def free_port() -> int:
    """A port of this machine that nobody uses right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@dataclass
class S3Server:
    """A server that runs as a process of its own, and can be stopped and started again on the same port."""

    command: Sequence[str]
    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def environ(self) -> dict[str, str]:
        """What a user of this server has in the environment."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"{self.command[0]} doesn't serve: {self.log.read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it and wait for its end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@contextmanager
def rclone_server(directory: Path) -> Iterator[S3Server]:
    """`rclone serve s3` over files in `directory`. Skips the test where there is no rclone that can.

    It has no cache for what is written: with one, lists now and then have an entry without a date for seconds, and a
    file that was just saved can't be read.
    """
    program = _rclone()
    (directory / "files" / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [program, "serve", "s3", "--auth-key", f"{KEY_ID},{SECRET}", "--addr", f"127.0.0.1:{port}"]
    command += ["--config", str(directory / "rclone.conf"), "--cache-dir", str(directory / "cache")]
    server = S3Server([*command, str(directory / "files")], port, directory / "log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def moto_server(directory: Path) -> Iterator[S3Server]:
    """`moto_server`, which keeps everything in memory. Skips the test where it is not installed."""
    program = _beside_python("moto_server") or shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not installed")
    port = free_port()
    server = S3Server([program, "-H", "127.0.0.1", "-p", str(port)], port, directory / "log")
    server.start()
    try:
        made = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(made, timeout=10).close()
        yield server
    finally:
        server.stop()


def _beside_python(name: str) -> str | None:
    return shutil.which(name, path=str(Path(sys.executable).parent))


def _rclone() -> str:
    for program in (_beside_python("rclone"), shutil.which("rclone")):
        if program is not None:
            said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=30).stdout
            version = re.match(r"rclone v(\d+)\.(\d+)", said)
            if version and (int(version[1]), int(version[2])) >= (1, 65):
                return program
    pytest.skip("rclone 1.65 or newer is not installed")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a server saw it; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answers. With `torn` the connection ends before the body does."""

    status: int
    body: str = ""
    torn: bool = False


@dataclass
class Recorder:
    """A server that writes every request down and gives the answers that it was told, the last one again and again."""

    port: int
    answers: list[Answer]
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def recorder(*answers: Answer) -> Iterator[Recorder]:
    """A recorder that runs in a thread of this process; without answers it says that nothing is there."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            record.requests.append(Request(self.command, self.path, headers))
            answer = record.answers.pop(0) if len(record.answers) > 1 else record.answers[0]
            self.send_response(answer.status)
            self.send_header("etag", '"e"')
            self.send_header("content-length", str(len(answer.body) + answer.torn))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else answer.body.encode())
            self.close_connection = self.close_connection or answer.torn

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server's names

        def log_message(self, *_args: object) -> None:
            """Nothing: tests read the record."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        record = Recorder(server.server_address[1], [*answers] or [Answer(404)])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield record
        finally:
            server.shutdown()
            thread.join()
