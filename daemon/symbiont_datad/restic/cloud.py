"""A repository in an object store, in the layout that restic uses there: S3, Google Cloud Storage, Azure.

An object is stored whole or not at all, and is there for good when the store has answered: that is what these stores
promise, so a save is one put. A second put of a name replaces the first; nothing here relies on a store that refuses
it, because some don't.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.credentials import CLOUDS, SECRETS, Cloud, settings_for
from symbiont_datad.restic.errors import Missing, NoRepository, NoSpace, RepositoryError, Unavailable

PATIENCE_S = 300.0
"""How long one call tries before it gives up, in seconds."""

_AT_ONCE = 1000  # what S3 lists in one answer
_LIST_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""When a list is asked for again whose answer broke off, or was none."""
_STORES: dict[str, type[S3Store] | type[GCSStore] | type[AzureStore]] = {
    "s3": S3Store,
    "gs": GCSStore,
    "az": AzureStore,
}
_OBJECT = re.compile(r"(?:data/([0-9a-f]{2})/(?=\1)|(?:keys|index|snapshots|locks)/)([0-9a-f]{64})")
_ENDPOINT = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}
_NO_LIST = "list response"
"""What obstore says of an answer to a list that breaks off ("error getting ..."), or is none ("got invalid ...")."""
_ASKED_FOR_CREDENTIALS = re.compile(r"/latest/(api/token|meta-data)|/computeMetadata/|/metadata/identity")
_REASONS = (
    ("dns error", "the server's name can't be resolved"),
    ("certificate", "the server's certificate isn't trusted"),
    ("Connection refused", "the server refuses connections"),
    ("kind: Timeout", "the server doesn't answer in time"),
    ("kind: Connect", "the server can't be connected to"),
)
"""What obstore's text about a failed connection means, most telling first. The text itself may hold a signed URL."""


class CloudBackend:
    """A bucket (Azure: a container) and a prefix in it as a Backend.

    `location` is `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, the prefix may be empty.
    Credentials and the endpoint come from `environ` (credentials.py) and from what the cloud gives to its machines.
    A store that is away is tried again for `patience_s` seconds at most, with growing pauses; then Unavailable is
    raised.

    Making one asks nothing of the network. Raises RepositoryError when `location` or what `environ` says is no use.
    """

    def __init__(self, location: str, environ: Mapping[str, str], patience_s: float = PATIENCE_S) -> None:
        scheme, _, rest = location.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme not in CLOUDS or not bucket or "@" in bucket or not location.isprintable():
            raise RepositoryError("a location in a cloud is written as s3://bucket/prefix, without credentials")
        self._cloud = CLOUDS[scheme]
        self._bucket = bucket
        self._location = f"{scheme}://{bucket}/{prefix.strip('/')}".rstrip("/")
        settings: Any = settings_for(self._cloud, environ)
        allow_http = _http_allowed(self._cloud, settings.get(self._cloud.endpoint, ""), environ)
        if scheme == "s3":
            settings.setdefault("virtual_hosted_style_request", "false")
            settings["disable_bulk_delete"] = "true"  # we remove one by one, and not every store knows the other way
        try:
            self._store = _STORES[scheme](
                bucket,
                prefix=prefix.strip("/") or None,
                config=settings,
                client_options={
                    "allow_http": allow_http,
                    "connect_timeout": timedelta(seconds=min(5.0, patience_s / 3)),
                    "timeout": timedelta(seconds=patience_s / 3),
                },
                # No try begins after two thirds of the time, and none takes longer than the last third.
                retry_config={
                    "max_retries": 10_000,
                    "retry_timeout": timedelta(seconds=patience_s * 2 / 3),
                    "backoff": {
                        "init_backoff": timedelta(seconds=min(0.1, patience_s / 60)),
                        "max_backoff": timedelta(seconds=min(15.0, patience_s / 6)),
                    },
                },
            )
        except ValueError as error:
            raise RepositoryError(f"{self._location} can't be used: its prefix is no path of an object") from error
        except BaseError as error:
            why = str(error).partition("\n")[0].partition(" error: ")[2]
            if any(settings.get(secret, why + " ") in why for secret in SECRETS):
                why = "a secret is not valid"
            raise RepositoryError(
                f"{self._location} can't be used with what the environment says ({why}): set {self._cloud.needed}"
            ) from None

    @property
    def location(self) -> str:
        """The URL, without credentials."""
        return self._location

    def create(self) -> None:
        """Nothing: a bucket has no directories, and it is its owner's to make."""

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Store a file, whole or not at all; what was there is replaced. Memoryviews must be of bytes.

        Raises Unavailable, NoSpace, NoRepository (no such bucket) or RepositoryError.
        """
        with self._told("written to"):
            obstore.put(self._store, _path(kind, name), parts, use_multipart=False)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The file's bytes from `offset` on: `length` of them, or all.

        Raises Missing, Unavailable, NoRepository (no such bucket) or RepositoryError.
        """
        path = _path(kind, name)
        with self._told("read"):
            try:
                if not offset and length is None:
                    return self._get(path)
                return self._get_range(path, offset, length)
            except FileNotFoundError as error:
                if _code(str(error)) in _NO_BUCKET:
                    raise
                raise Missing(f"{self._location}/{path} isn't there") from None

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Name and size (bytes) of every file of the kind; what else lies there is left out. Raises as `load` does."""
        if kind is FileKind.CONFIG:
            with self._told("read"):
                try:
                    size = obstore.head(self._store, kind)["size"]
                except FileNotFoundError:
                    return
            yield kind, size
            return
        with self._told("listed"):
            found = self._listed(kind)
        yield from found

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file; one that is not there is no error. Raises as `save` does."""
        with self._told("written to"):
            try:
                obstore.delete(self._store, _path(kind, name))
            except FileNotFoundError as error:
                if _code(str(error)) in _NO_BUCKET:
                    raise

    def free(self) -> int | None:
        """None: a bucket has no end."""
        return None

    def _listed(self, kind: FileKind) -> Sequence[tuple[str, int]]:
        """The whole list, asked for again when an answer breaks off or is no list, which obstore does not do itself.

        Servers over files send such now and then: rclone's, with a cache for writes, an entry without a date.
        """
        for pause_s in _LIST_PAUSES_S:
            try:
                return self._listed_once(kind)
            except BaseError as error:
                if _NO_LIST not in str(error):
                    raise
            time.sleep(pause_s)
        return self._listed_once(kind)

    def _listed_once(self, kind: FileKind) -> Sequence[tuple[str, int]]:
        pages = obstore.list(self._store, kind, chunk_size=_AT_ONCE)
        entries = ((_OBJECT.fullmatch(entry["path"]), entry["size"]) for page in pages for entry in page)
        return [(match[2], size) for match, size in entries if match]

    def _get(self, path: str) -> bytes:
        return obstore.get(self._store, path).bytes().to_bytes()

    def _get_range(self, path: str, offset: int, length: int | None) -> bytes:
        """A part of an object. A range that begins behind its end is an error in HTTP, and here it is no bytes."""
        wanted = 1 if length == 0 else length  # HTTP can't ask for nothing, but we still learn whether it is there
        try:
            if wanted is None:
                found = obstore.get(self._store, path, options={"range": {"offset": offset}}).bytes()
            else:
                found = obstore.get_range(self._store, path, start=offset, length=wanted)
        except BaseError as error:
            text = str(error)
            if _status(text) == 416:
                return b""
            if "NotPartial" not in text:
                raise
            # Some servers (rclone's is one) send the range but call it the whole, which obstore refuses to believe.
            return self._get(path)[offset:][:length]
        return found.to_bytes()[:length]

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Tell what obstore raises as what it means for the repository. `done` goes into "can't be …"."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._failure(error, done) from None

    def _failure(self, error: Exception, done: str) -> RepositoryError:
        """One short sentence. Nothing of obstore's text goes into it but numbers and codes: it may hold signatures."""
        text = str(error)
        status, code = _status(text), _code(text)
        answer = f"the server says {status or ''} {code}".replace("  ", " ").rstrip()
        where = self._location
        if _ASKED_FOR_CREDENTIALS.search(text):
            return RepositoryError(f"no credentials for {where} were found: set {self._cloud.needed}")
        if status == 507 or code in _FULL:
            return NoSpace(f"{where} has no room left ({answer})")
        if code == "RequestTimeTooSkewed":
            return RepositoryError(f"{where} can't be {done}: this machine's clock is wrong ({answer}); set it")
        if status in (401, 403) or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return RepositoryError(
                f"{where} can't be {done} with these credentials ({answer}): check {self._cloud.needed}"
            )
        if status == 404 or isinstance(error, FileNotFoundError):
            return NoRepository(f"{where} can't be {done}: there is no bucket {self._bucket}")
        if "incorrectly configured region" in text or code == "AuthorizationHeaderMalformed":
            return RepositoryError(f"{where} can't be {done}: its bucket is in another region; set AWS_REGION")
        if status and status < 500 and status not in (408, 429):
            return RepositoryError(f"{where} can't be {done}: {answer}")
        if status:
            return Unavailable(f"{where} can't be {done} now: {answer}")
        if f"invalid {_NO_LIST}" in text:
            return Unavailable(f"{where} can't be {done} now: what the server sends is no list of objects")
        reason = next((why for sign, why in _REASONS if sign in text), "the connection failed")
        return Unavailable(f"{where} can't be reached: {reason}")


def _path(kind: FileKind, name: str) -> str:
    match kind:
        case FileKind.CONFIG:
            return kind
        case FileKind.DATA:
            return f"{kind}/{name[:2]}/{name}"
        case _:
            return f"{kind}/{name}"


def _status(text: str) -> int | None:
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def _code(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else ""


def _http_allowed(cloud: Cloud, endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether the endpoint is one without TLS that may be used: on this machine, or because the user says so.

    Raises RepositoryError, also for one that is no address: obstore would end in a panic then, or ask nobody.
    """
    if endpoint and not _is_address(endpoint):
        raise RepositoryError("the endpoint is no address of a server: give it as https://host or https://host:port")
    if not endpoint.startswith("http://"):
        return False
    host = urlsplit(endpoint).hostname or ""
    if environ.get(cloud.allow_http, "").lower() in ("true", "1", "yes") or _on_loopback(host):
        return True
    raise RepositoryError(
        f"the endpoint at {host} would be used without TLS: give it as https://, or set {cloud.allow_http}=true"
    )


def _is_address(endpoint: str) -> bool:
    try:
        return bool(_ENDPOINT.fullmatch(endpoint) and urlsplit(endpoint).port != 0)
    except ValueError:  # there is no such port
        return False


def _on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
