"""Object stores: whose credentials are used, what failures mean, and how long a store that is away is waited for.

S3 is tried against real servers in test_contract.py. There is no server for Google Cloud Storage and Azure here: for
these, a server that only writes down what it is asked shows that address and credentials arrive as they should.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.cloud import CloudBackend
from symbiont_datad.restic.errors import Missing, NoRepository, NoSpace, RepositoryError, Unavailable
from tests.restic.backends.servers import (
    BUCKET,
    KEY_ID,
    SECRET,
    Answer,
    Request,
    S3Server,
    free_port,
    rclone_server,
    recorder,
)

CONFIG, DATA, KEY = FileKind.CONFIG, FileKind.DATA, FileKind.KEY
NAME = "ab" * 32
S3 = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1"}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore looks into the process's own environment as well: what is set there must not decide a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def asked(location: str, environ: dict[str, str], endpoint: str) -> Request:
    """The one request that reading the config makes."""
    with recorder() as server:
        with pytest.raises(Missing):
            CloudBackend(location, {**environ, endpoint: server.url}, 3).load(CONFIG, "")
        (request,) = server.requests
    return request


def s3_credential(environ: dict[str, str]) -> str:
    """Key id and region that a request to S3 is signed with, and `with token` when there is a session's token."""
    headers = asked("s3://bucket/pre/fix", environ, "AWS_ENDPOINT_URL").headers
    found = re.search(r"Credential=(\w+)/\d+/([\w-]+)/s3/aws4_request", headers["authorization"])
    assert found
    return f"{found[1]} {found[2]}" + (" with token" if "x-amz-security-token" in headers else "")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (S3, "AAAAAAAAAAAA eu-west-1"),
        (S3 | {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-north-1"}, "AAAAAAAAAAAA eu-north-1"),
        (S3 | {"AWS_SESSION_TOKEN": "t"}, "AAAAAAAAAAAA eu-west-1 with token"),
        ({"HOME": "DIR/home"}, "HOMEDEFAULT us-east-1"),
        ({"HOME": "DIR/home", "AWS_PROFILE": "other", "AWS_REGION": "eu-west-1"}, "HOMEOTHER eu-west-1 with token"),
        ({"HOME": "DIR/home", "AWS_PROFILE": "other"}, "HOMEOTHER sa-east-1 with token"),
        ({"HOME": "DIR/home", "AWS_SHARED_CREDENTIALS_FILE": "DIR/shared"}, "SHARED us-east-1"),
        (S3 | {"HOME": "DIR/home", "AWS_PROFILE": "other"}, "AAAAAAAAAAAA eu-west-1"),
        ({"CREDENTIALS_DIRECTORY": "DIR/systemd", "HOME": "DIR/home"}, "SYSTEMD ap-south-1"),
        (S3 | {"CREDENTIALS_DIRECTORY": "DIR/systemd"}, "AAAAAAAAAAAA eu-west-1"),
    ],
)
def test_credentials_of_s3_come_from_where_they_are(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    """Environment, then systemd's credentials, then the shared file with its profiles: that is what signs a request."""
    files = {
        "home/.aws/credentials": "[default]\naws_access_key_id = HOMEDEFAULT\naws_secret_access_key = a%b\n\n"
        "[other]\naws_access_key_id=HOMEOTHER\naws_secret_access_key=s\naws_session_token=t\nregion=sa-east-1\n",
        "shared": "[default]\naws_access_key_id=SHARED\naws_secret_access_key=s\n",
        "systemd/aws_access_key_id": "SYSTEMD\n",
        "systemd/aws_secret_access_key": "s\n",
        "systemd/aws_region": "ap-south-1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert expected == s3_credential({key: value.replace("DIR", str(tmp_path)) for key, value in environ.items()})


def test_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over wins over what the process has in its own environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "PROCESS")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert "AAAAAAAAAAAA eu-west-1" == s3_credential(S3)


def test_s3_is_asked_by_path() -> None:
    """With an endpoint the bucket is in the path, so that a server without names for buckets works."""
    assert "/bucket/pre/fix/config" == asked("s3://bucket/pre/fix/", S3, "AWS_ENDPOINT").path
    assert "/bucket/config" == asked("s3://bucket", S3, "AWS_ENDPOINT_URL_S3").path


def test_google_is_asked_with_its_token() -> None:
    """Bucket, prefix and a token that was given reach Google Cloud Storage's interface."""
    request = asked("gs://bucket/prefix", {"GOOGLE_ACCESS_TOKEN": "token"}, "GOOGLE_BASE_URL")
    assert ("/bucket/prefix%2Fconfig", "Bearer token") == (request.path, request.headers["authorization"])


@pytest.mark.parametrize("source", ["variable", "credential", "credential with a path"])
def test_google_is_asked_as_the_service_account(tmp_path: Path, source: str) -> None:
    """A service account's key file signs what Google is asked with; it may itself be a systemd credential."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = {"type": "service_account", "client_email": "me@example", "client_id": "1", "private_key_id": "k"}
    text = json.dumps(account | {"private_key": key.decode()})
    (tmp_path / "key.json").write_text(text)
    credential = text if source == "credential" else str(tmp_path / "key.json")
    (tmp_path / "google_application_credentials").write_text(credential)
    if source == "variable":
        environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    else:
        environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    bearer = asked("gs://bucket/prefix", environ, "GOOGLE_BASE_URL").headers["authorization"]
    claims = bearer.removeprefix("Bearer ").split(".")[1]
    assert "me@example" == json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"]


@pytest.mark.parametrize("prefix", ["AZURE_STORAGE_", "AZURE_"])
def test_azure_is_asked_with_its_key(prefix: str) -> None:
    """The account and its key, by Azure's names and by restic's, sign what the container is asked."""
    environ = {f"{prefix}ACCOUNT_NAME": "account", f"{prefix}ACCOUNT_KEY": base64.b64encode(b"k").decode()}
    request = asked("az://container/prefix", environ, "AZURE_STORAGE_ENDPOINT")
    assert "/container/prefix/config" == request.path
    assert request.headers["authorization"].startswith("SharedKey account:")


@pytest.mark.parametrize("name", ["AZURE_STORAGE_SAS_TOKEN", "AZURE_ACCOUNT_SAS"])
def test_azure_is_asked_with_a_shared_access_signature(name: str) -> None:
    """A shared access signature goes into the address, and never into a message."""
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "account", name: "?sv=1&sig=SECRET%3D"}
    assert "/c/p/config?sv=1&sig=SECRET%3D" == asked("az://c/p", environ, "AZURE_ENDPOINT").path
    gone = environ | {"AZURE_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(Unavailable) as caught:
        CloudBackend("az://c/p", gone, 0.6).load(CONFIG, "")
    assert "az://c/p can't be reached: the server refuses connections" == str(caught.value)


@pytest.mark.parametrize(
    ("location", "environ", "message"),
    [
        ("s3://", S3, "s3://bucket/prefix"),
        ("s3:///prefix", S3, "s3://bucket/prefix"),
        ("s3://id:SECRET@bucket/prefix", S3, "without credentials"),
        ("ftp://bucket", S3, "s3://bucket/prefix"),
        ("s3://b", {"AWS_ACCESS_KEY_ID": "SECRET"}, r"s3://b can't be used .*Missing SecretAccessKey.*AWS_SECRET"),
        ("az://c", {}, r"Account must be specified.*AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://c", {"AZURE_ACCOUNT_NAME": "a", "AZURE_ACCOUNT_KEY": "SECRET!"}, "Invalid Access Key"),
        ("az://c", {"AZURE_ACCOUNT_NAME": "a", "AZURE_ACCOUNT_SAS": "SECRET"}, "SAS"),
        ("gs://b", {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/file"}, "/no/such/file"),
        ("s3://b", S3 | {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "perhaps"}, "perhaps"),
        (
            "s3://b",
            S3 | {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "SECRET", "AWS_SESSION_TOKEN": "SECRET"},
            "a secret is not",
        ),
        ("s3://b", S3 | {"AWS_ENDPOINT_URL": "http://192.0.2.1:9000"}, "192.0.2.1 .*without TLS.*AWS_ALLOW_HTTP=true"),
        ("az://c", {"AZURE_ENDPOINT": "http://example.invalid"}, "AZURE_ALLOW_HTTP=true"),
        ("s3://b", S3 | {"AWS_ENDPOINT_URL": "localhost:9000"}, "no address of a server.*https://host"),
        ("s3://b", S3 | {"AWS_ENDPOINT_URL": "https://id:SECRET@example.invalid"}, "no address of a server"),
        ("gs://b", {"GOOGLE_BASE_URL": "ftp://example.invalid"}, "no address of a server"),
        ("az://c", {"AZURE_ENDPOINT": "https://"}, "no address of a server"),
        ("az://c", {"AZURE_ENDPOINT": "https://example.invalid:99999"}, "no address of a server"),
        ("s3://b", {"AWS_SHARED_CREDENTIALS_FILE": "DIR/none"}, "DIR/none isn't there"),
        ("s3://b", {"HOME": "DIR", "AWS_PROFILE": "p"}, "DIR/.aws/credentials isn't there"),
        ("s3://b", {"AWS_SHARED_CREDENTIALS_FILE": "DIR/ini", "AWS_PROFILE": "p"}, "DIR/ini has no profile p"),
        ("s3://b", {"AWS_SHARED_CREDENTIALS_FILE": "DIR/broken"}, "DIR/broken is no valid ini file"),
        ("s3://b", {"AWS_SHARED_CREDENTIALS_FILE": "DIR/binary"}, "DIR/binary: it is no text"),
        ("s3://b", {"AWS_SHARED_CREDENTIALS_FILE": "DIR"}, "DIR: is a directory"),
    ],
)
def test_what_cant_be_used_is_refused_at_once(
    tmp_path: Path, location: str, environ: dict[str, str], message: str
) -> None:
    """A wrong location or environment is told when the backend is made, with what to set and without a secret."""
    (tmp_path / "ini").write_text("[default]\naws_secret_access_key=SECRET\n")
    (tmp_path / "broken").write_text("aws_secret_access_key=SECRET\n[")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    here = {key: value.replace("DIR", str(tmp_path)) for key, value in environ.items()}
    with pytest.raises(RepositoryError, match=message.replace("DIR", re.escape(str(tmp_path)))) as caught:
        CloudBackend(location, here)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_plain_http_is_fine_on_this_machine_or_when_wanted(host: str) -> None:
    """Making a backend asks nobody; an endpoint without TLS is accepted on loopback, or when the user says so."""
    assert "s3://b/p" == CloudBackend("s3://b/p/", S3 | {"AWS_ENDPOINT_URL": f"http://{host}:9"}).location
    CloudBackend("s3://b", S3 | {"AWS_ENDPOINT_URL": "http://192.0.2.1", "AWS_ALLOW_HTTP": "true"})
    CloudBackend("s3://b", S3 | {"AWS_ENDPOINT_URL": "https://192.0.2.1"})


CALLS: dict[str, Callable[[CloudBackend], object]] = {
    "load": lambda backend: backend.load(DATA, NAME),
    "load a part": lambda backend: backend.load(DATA, NAME, 5, 5),
    "save": lambda backend: backend.save(DATA, NAME, [b"x"]),
    "list": lambda backend: list(backend.list(DATA)),
    "remove": lambda backend: backend.remove(DATA, NAME),
}


def code(word: str) -> str:
    """An error as S3 words it."""
    return f"<Error><Code>{word}</Code><Message>signed with SECRET</Message></Error>"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(403, code("SignatureDoesNotMatch")), RepositoryError, r"403 SignatureDoesNotMatch\): check AWS_ACC"),
        (Answer(403, code("RequestTimeTooSkewed")), RepositoryError, "this machine's clock is wrong .*; set it"),
        (Answer(401), RepositoryError, r"401\): check AWS_ACCESS_KEY_ID"),
        (Answer(404, code("NoSuchBucket")), NoRepository, "there is no bucket bucket"),
        (Answer(400, code("AuthorizationHeaderMalformed")), RepositoryError, "another region; set AWS_REGION"),
        (Answer(301), RepositoryError, "another region; set AWS_REGION"),
        (Answer(400, code("InvalidRequest")), RepositoryError, "400 InvalidRequest"),
        (Answer(503, code("SlowDown")), Unavailable, "503 SlowDown"),
        (Answer(507, code("XMinioStorageFull")), NoSpace, "no room left.*507 XMinioStorageFull"),
        (Answer(403, code("QuotaExceeded")), NoSpace, "no room left.*403 QuotaExceeded"),
    ],
)
def test_what_a_server_says_is_told(call: str, answer: Answer, error: type[Exception], message: str) -> None:
    """Each answer becomes the error that it means, of exactly this kind, whatever the call was."""
    with recorder(answer) as server:
        # What a server says of itself is asked for again until patience ends; on a busy machine, before it has spoken.
        patience_s = 10 if answer.status < 500 else 0.6
        while True:
            backend = CloudBackend("s3://bucket/p", S3 | {"AWS_ENDPOINT_URL": server.url}, patience_s)
            with pytest.raises(RepositoryError) as caught:
                CALLS[call](backend)
            if "doesn't answer in time" not in str(caught.value) or patience_s > 15:
                break
            patience_s *= 5
    assert re.search(rf"s3://bucket/p .*{message}", str(caught.value))
    assert error is type(caught.value)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_no_credentials_at_all() -> None:
    """A machine that has none, and is given none by its cloud, is told what to set."""
    with recorder() as server:
        environ = {"AWS_ENDPOINT_URL": server.url, "AWS_METADATA_ENDPOINT": server.url}
        with pytest.raises(RepositoryError, match=r"no credentials for s3://b/p were found: set AWS_ACCESS_KEY_ID"):
            CloudBackend("s3://b/p", environ, 3).load(CONFIG, "")
        assert ["/latest/api/token"] == [request.path for request in server.requests]


def test_a_hiccup_is_tried_again() -> None:
    """A server that is busy for a moment costs a moment: the save succeeds."""
    with recorder(Answer(503), Answer(500), Answer(200)) as server:
        CloudBackend("s3://bucket/p", S3 | {"AWS_ENDPOINT_URL": server.url}, 10).save(DATA, NAME, [b"a", b"b"])
        assert [("PUT", f"/bucket/p/data/ab/{NAME}")] * 3 == [(one.method, one.path) for one in server.requests]


def listing(*entries: str, more: bool = False) -> Answer:
    """What S3 lists; with `more`, the first page of several."""
    page = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if more else ""
    contents = "".join(f"<Contents>{entry}</Contents>" for entry in entries)
    return Answer(200, f"<ListBucketResult>{page}{contents}</ListBucketResult>")


def entry(name: str, *, dated: bool = True) -> str:
    """One pack in a list; every object has a date, but some servers forget it."""
    date = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>" if dated else ""
    return f"<Key>p/data/{name[:2]}/{name}</Key>{date}<Size>7</Size>"


TORN = Answer(200, "<ListBucketResult><Name>", torn=True)
UNDATED = listing(entry(NAME, dated=False))


@pytest.mark.parametrize("answer", [TORN, UNDATED, Answer(200)], ids=["torn", "without a date", "empty"])
def test_a_list_that_is_none_is_asked_for_again(answer: Answer) -> None:
    """An answer that breaks off, or is no list, costs a moment; names that came before it are told once."""
    other = "cd" * 32
    answers = [listing(entry(NAME), more=True), answer, listing(entry(NAME), more=True), listing(entry(other))]
    with recorder(*answers) as server:
        backend = CloudBackend("s3://bucket/p", S3 | {"AWS_ENDPOINT_URL": server.url}, 10)
        assert [(NAME, 7), (other, 7)] == list(backend.list(DATA))
        assert len(answers) == len(server.requests)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(TORN, "can't be reached: the connection failed"), (UNDATED, "can't be listed now: what the server sends is no")],
)
def test_a_server_that_never_lists_is_told_of(answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that stays useless is an error that says so, after some tries."""
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    with recorder(answer) as server:
        backend = CloudBackend("s3://bucket/p", S3 | {"AWS_ENDPOINT_URL": server.url}, 10)
        with pytest.raises(Unavailable, match=re.escape(f"s3://bucket/p {message}")):
            list(backend.list(DATA))
        assert 6 == len(server.requests)


@pytest.mark.parametrize("call", ["save", "load", "list"])
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "is silent"])
def test_patience_has_an_end(call: str, silent: bool) -> None:
    """A server that refuses, or takes a connection and says nothing, is Unavailable before patience has run out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        environ = S3 | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        backend = CloudBackend("s3://bucket/p", environ, 0.6)
        began = time.monotonic()
        why = "doesn't answer in time" if silent else "refuses connections"
        with pytest.raises(Unavailable) as caught:
            CALLS[call](backend)
        took = time.monotonic() - began
    assert f"s3://bucket/p can't be reached: the server {why}" == str(caught.value)
    assert 0.3 < took < 15  # a machine that does much else adds to it


@pytest.mark.slow
def test_a_server_that_comes_back_loses_nothing(tmp_path: Path) -> None:
    """While the server is gone for some seconds, saves and loads wait, and all succeed when it is back."""
    with rclone_server(tmp_path) as server:
        backend = CloudBackend(f"s3://{BUCKET}/p", server.environ, 60)
        backend.save(KEY, NAME, [b"key"])
        server.stop()
        back = threading.Timer(4, server.start)
        back.start()
        began = time.monotonic()
        backend.save(DATA, NAME, [b"x" * 5000] * 100)
        assert 3.5 < time.monotonic() - began
        back.join()
        assert (b"key", b"x" * 500_000) == (backend.load(KEY, NAME), backend.load(DATA, NAME))


@pytest.mark.slow
def test_restic_and_we_mean_the_same_place(rclone: S3Server) -> None:
    """What restic puts into a bucket is listed and read here, and restic reads what we copy to another prefix."""
    restic = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if restic is None:
        pytest.skip("restic is not installed")

    def run(prefix: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environ = os.environ | rclone.environ | {"RESTIC_PASSWORD": "x"}
        repository = f"s3:{rclone.environ['AWS_ENDPOINT_URL']}/{BUCKET}/{prefix}"
        command = [restic, "--no-cache", "-r", repository, *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    assert 0 == run("restic", "init").returncode
    assert 0 == run("restic", "backup", "--host", "h", __file__).returncode
    theirs, copy = (CloudBackend(f"s3://{BUCKET}/{prefix}", rclone.environ) for prefix in ("restic", "copy/of/it"))
    for kind in FileKind:
        for name, size in theirs.list(kind):
            content = theirs.load(kind, name)
            assert size == len(content)
            assert kind is CONFIG or name == hashlib.sha256(content).hexdigest()
            copy.save(kind, name, [content])
    checked = run("copy/of/it", "check", "--read-data")
    assert (0, True) == (checked.returncode, "no errors were found" in checked.stdout), checked.stderr


def test_a_local_repository_loads_no_obstore(tmp_path: Path) -> None:
    """A process whose repository is a directory doesn't carry the client for object stores."""
    program = f"""
import sys
from symbiont_datad.restic.places import backend_at
backend_at({str(tmp_path / "r")!r}, {{}}).create()
assert not [name for name in sys.modules if "obstore" in name]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (0, "") == (done.returncode, done.stderr)
