"""What is in a file: the same answer in one piece and in many, for gzip and plain, whole and cut."""

import gzip
import os
import zlib
from hashlib import sha256
from pathlib import Path

import pytest

from symbiont_datad.formats.context import Damage
from symbiont_datad.migrate import content
from symbiont_datad.migrate.content import Content, Question, look
from tests.contexts import context, zipped

COMPARED = Question(judged=False, compared=True)


@pytest.fixture
def looked(tmp_path: Path) -> "Look":
    """Asks what is in a file with this content."""
    return Look(tmp_path / "file")


class Look:
    """See `looked`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, data: bytes, question: Question = COMPARED, size: int = 0) -> Content:
        self._path.write_bytes(data)
        if size:
            os.truncate(self._path, size)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            return look(fd, size or len(data), question)
        finally:
            os.close(fd)


def test_two_encodings_of_a_text_have_one_text(looked: Look) -> None:
    """Their bytes differ, their text does not."""
    plain, packed = looked(b'{"a": 1}'), looked(gzip.compress(b'{"a": 1}'))
    assert (False, True) == (plain.gzip, packed.gzip)
    assert plain.text == packed.text == sha256(b'{"a": 1}').digest()
    assert plain.digest != packed.digest


@pytest.mark.parametrize(
    "data", [b"\x1f\x8b and nothing like gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], b"\x1f\x8b"]
)
def test_what_only_begins_like_gzip_has_no_text(looked: Look, data: bytes) -> None:
    """It is compared by its bytes; judged, it is damaged."""
    found = looked(data)
    assert (True, False, found.digest) == (found.gzip, found.exact, found.text)
    assert looked(data, Question(judged=True)).damage


def test_what_follows_the_member_is_not_its_text(looked: Look) -> None:
    """So the file is not the text in another form."""
    assert not looked(gzip.compress(b"{}") + b"more").exact


def test_a_context_says_when_it_changed_last(looked: Look) -> None:
    """Asked for by those who look for the newer of two; what is cut says nothing."""
    data = zipped(context())
    assert looked(data, Question(judged=True, fields=True, compared=True)).updated_ns > 0
    assert 0 == looked(gzip.decompress(data)[:-20], Question(judged=True, compared=True)).updated_ns


def test_what_is_very_large_is_compared_in_pieces(looked: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is too large to be judged; plain or as gzip, it has the hash of its text."""
    monkeypatch.setattr(content, "LARGEST", 3 << 20)
    size = (3 << 20) + 5
    digest = sha256(bytes(size)).digest()
    plain = looked(b"", Question(judged=True, compared=True), size)
    assert (Damage.TOO_LARGE, digest, digest, size) == (plain.damage, plain.digest, plain.text, plain.text_size)
    assert Content(False, size, Damage.TOO_LARGE) == looked(b"", Question(judged=True), size)
    packed = zlib.compress(bytes(size), 1, wbits=31)
    small = looked(packed)
    assert (True, False, small.digest) == (small.gzip, small.exact, small.text)
    padded = looked(packed, COMPARED, size)  # as large as that itself, because something follows
    assert (True, digest, size, False) == (padded.gzip, padded.text, padded.text_size, padded.exact)
