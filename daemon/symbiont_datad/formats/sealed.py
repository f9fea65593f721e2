"""Whether a file looks as age seals it, without the key and without age's library (age-encryption.org/v1).

A header in lines of ASCII, the last of which begins with `---`; then 16 bytes, and chunks of 64 KiB with a tag of 16
bytes each. Only the key's owner can tell whether the content is whole; a cut shows where it doesn't end a chunk.
"""

import re

MAGIC = b"age-encryption.org/v1\n"
ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"

_HEADER = re.compile(rb"age-encryption\.org/v1\n(?:->[ -~]*\n(?:[A-Za-z0-9+/]+\n)*\n?)+?--- [A-Za-z0-9+/]{43}\n")
_NONCE, _TAG, _CHUNK = 16, 16, (64 << 10) + 16


def is_sealed(data: bytes) -> bool:
    """Whether content begins as age's files do."""
    return data.startswith((MAGIC, ARMOR))


def is_cut(data: bytes) -> bool:
    """Whether content that begins as age's files do can be seen to end too early. Armored content is not looked at."""
    if data.startswith(ARMOR):
        return False
    header = _HEADER.match(data)
    if header is None:
        return True
    payload = len(data) - header.end() - _NONCE
    last = payload % _CHUNK
    return payload < _TAG or 0 < last < _TAG or (last == _TAG and payload > _CHUNK)
