"""Inputs that once broke something, each made as small as it could be: their targets take them now."""

from contextlib import suppress

import pytest

from tests.fuzz.targets import TARGETS

_BY_NAME = {target.name: target for target in TARGETS}

FOUND = [
    ("quantities", b"9" * 330 + b"G"),  # an amount beyond what a float holds
    ("repository-location", b"gs://:/\0"),  # the store's own errors came out
    ("repository-location", b"gs://\xed"),
    ("repository-location", b"az://:/://o"),
    ("quiet-sweep", b"7"),
    ("quiet-sweep", b'"4\\u0000"'),
    ("quiet-sweep", b"[" * 3000),
    ("rewritten-settings", b'e=""\n[[s]]\nname=""\nname=""'),  # tomlkit has more errors than one
    ("rewritten-settings", b'[context]\nstorage_path=""#\nbackup_count=1e995\nn=false'),
    ("rewritten-settings", b'persistence_config={storage_path="",auto_save_interval=0}\ne.e.s=""'),  # no end of a line
    ("rewritten-settings", b'g={g="",l=0}\nfile_persistence.g={o=0}\nfile_persistence.storage_path="b"\nh=""'),
    ("page", b"\n\n\n\x86"),  # a byte of a path in a reason
    ("page", b"\n\n\n\n\xff"),
    ("events-query", b"\n\n\xed"),  # a byte that is no character in what is looked for
    ("events-query", b"\n\n\n\xed\n\xed"),
    ("log-lines", b'{"number":1,"previous":"","archive":"","bytes":1e400,"sha256":""}\n'),
    ("log-lines", b"a.log.20261126T192602Z-0001" + b"9" * 5000),  # more digits than Python makes a number of
    ("audit-chain", b"\1\n"),  # a manifest of one empty line
    ("journal-lines", b"[1]"),
    ("journal-lines", b"7"),
    ("journal-lines", b'{"MESSAGE":' + b'{"a":' * 3000),
    ("journal-lines", b'{"":"","SYMBIONT_PATH":"\\ud8da"}'),  # half of a pair, as JSON may have it
]


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_is_taken(name: str, data: bytes) -> None:
    """Nothing but the target's own errors comes out."""
    target = _BY_NAME[name]
    with suppress(*target.allowed):
        target.feed(data)
