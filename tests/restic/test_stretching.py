"""Stretching a password ahead gives what stretching it now gives, or changes nothing."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.restic.stretching import stretch, stretch_ahead

SALT = bytes(range(64))
KEY = {"kdf": "scrypt", "N": 16, "r": 8, "p": 1, "salt": base64.b64encode(SALT).decode()}


def place(at: Path, key: dict[str, Any]) -> str:
    """A repository of which there is only a key file."""
    (at / "keys").mkdir()
    (at / "keys" / ("a" * 64)).write_text(json.dumps(key))
    return str(at)


def test_the_same_ahead_and_now(tmp_path: Path) -> None:
    """As `hashlib` has it."""
    expected = hashlib.scrypt("pass\udcffword".encode("utf-8", "surrogateescape"), salt=SALT, n=16, r=8, p=1, dklen=64)
    assert expected == stretch("pass\udcffword", SALT, 16, 8, 1)
    stretch_ahead(place(tmp_path, KEY), lambda: "pass\udcffword")
    assert expected == stretch("pass\udcffword", SALT, 16, 8, 1)


def test_something_else_is_wanted(tmp_path: Path) -> None:
    """Another password or key than the one that was begun with."""
    location = place(tmp_path, KEY)
    for wanted in (("other", SALT, 16, 8, 1), ("x", bytes(64), 16, 8, 1), ("x", SALT, 32, 8, 1)):
        stretch_ahead(location, lambda: "x")
        assert hashlib.scrypt(wanted[0].encode(), salt=wanted[1], n=wanted[2], r=8, p=1, dklen=64) == stretch(*wanted)


@pytest.mark.parametrize("key", [{}, KEY | {"salt": "%"}, KEY | {"N": "x"}, KEY | {"N": 3}])
def test_what_goes_wrong_ahead_is_no_error(key: dict[str, Any], tmp_path: Path) -> None:
    """Who opens the repository then meets it."""
    stretch_ahead(place(tmp_path, key), lambda: "x")
    assert hashlib.scrypt(b"x", salt=SALT, n=16, r=8, p=1, dklen=64) == stretch("x", SALT, 16, 8, 1)


def test_no_repository_or_no_password(tmp_path: Path) -> None:
    """Nothing comes of it."""

    def no_password() -> str:
        raise RuntimeError("the file is not there")

    stretch_ahead(str(tmp_path / "none"), lambda: "x")
    stretch_ahead(place(tmp_path, KEY), no_password)
    assert 64 == len(stretch("x", SALT, 16, 8, 1))
