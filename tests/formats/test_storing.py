"""How archives are stored: what goes in comes out with stock libraries, and failures stay what they are."""

import gzip
import io

import pyrage
import pytest
import zstandard

from symbiont_datad.formats.age import new_identity, recipient_of
from symbiont_datad.formats.rotated import Rotated
from symbiont_datad.formats.storing import Storage

IDENTITY = new_identity()
RECIPIENT = recipient_of(IDENTITY)
CONTENT = b"".join(b"line %d\n" % n for n in range(400_000))
WAYS = [Storage(compress, recipient) for compress in ("zstd", "gzip", "none") for recipient in ("", RECIPIENT)]


def stored(storage: Storage, content: bytes) -> bytes:
    """What a storage makes of the content."""
    sink = io.BytesIO()
    storage.store(io.BytesIO(content), sink)
    return sink.getvalue()


@pytest.mark.parametrize("content", [CONTENT, b"", b"x"], ids=["much", "nothing", "a byte"])
@pytest.mark.parametrize("storage", WAYS, ids=lambda one: f"{one.compress}{' sealed' * bool(one.recipient)}")
def test_what_is_stored_is_read_back(storage: Storage, content: bytes) -> None:
    """Opened with the key, unpacked: the same bytes."""
    data = stored(storage, content)
    if storage.recipient:
        data = pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(IDENTITY)])
    if storage.compress == "zstd":
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    elif storage.compress == "gzip":
        data = gzip.decompress(data)
    assert content == data


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        (Storage(), "a.log.20260101T000000Z-0001"),
        (Storage("zstd"), "a.log.20260101T000000Z-0001.zst"),
        (Storage("gzip", RECIPIENT), "a.log.20260101T000000Z-0001.gz.age"),
        (Storage("none", RECIPIENT), "a.log.20260101T000000Z-0001.age"),
    ],
)
def test_the_name_says_how(storage: Storage, name: str) -> None:
    """The extensions tell how an archive is opened."""
    assert name == storage.named(Rotated("a.log", 1767225600, 1)).name
    assert storage.plain is (name[-1] == "1")


@pytest.mark.parametrize("storage", WAYS, ids=lambda one: f"{one.compress}{' sealed' * bool(one.recipient)}")
def test_errors_of_both_ends_arrive(storage: Storage) -> None:
    """What reading or writing raises is raised, and not an error of a library in between."""

    class Bad(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise KeyError("reading")

    class Full(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(KeyError, match="reading"):
        storage.store(Bad(), io.BytesIO())
    with pytest.raises(OSError, match="No space left"):
        storage.store(io.BytesIO(CONTENT), Full())


def test_a_recipient_that_is_none_is_an_error() -> None:
    """The library's own, where neither end has failed."""
    with pytest.raises(pyrage.RecipientError):
        Storage("zstd", "age1nobody").store(io.BytesIO(CONTENT), io.BytesIO())
