"""Blobs are opened as they lie in a pack, alone or many at once; one with other content than its id says is told."""

from hashlib import sha256

import pytest

from symbiont_datad.restic.compression import compress
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.opening import Sealed, open_blobs

KEY = Key.random()


def sealed(plain: bytes, *, of: bytes | None = None, compressed: bool = False) -> Sealed:
    """A blob with this content, under the id of that or of another one."""
    text = compress(plain, 3) if compressed else plain
    return sha256(plain if of is None else of).digest(), KEY.seal(text), len(plain) if compressed else 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_many_are_opened_in_their_order(count: int) -> None:
    """Compressed or not."""
    plains = [b"content %d" % number * 20 for number in range(count)]
    assert plains == list(open_blobs(KEY, [sealed(plain, compressed=b"1" in plain) for plain in plains]))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_other_content_is_damage(count: int, compressed: bool) -> None:
    """Though its seal is right: then another program has written it. It is named."""
    blobs = [sealed(b"content" * 9, of=b"another", compressed=compressed), *[sealed(b"right")] * (count - 1)]
    with pytest.raises(Damaged, match=f"blob {sha256(b'another').hexdigest()} has other content"):
        list(open_blobs(KEY, blobs))
