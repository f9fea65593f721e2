"""Sealing and opening, beside what restic sealed and what the authors of Poly1305-AES computed."""

import base64
import os
import threading
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.restic.crypto import OVERHEAD, SALT, Key, Scrypt, derive, make_key_file, open_key_file
from symbiont_datad.restic.errors import Damaged, WrongPassword
from symbiont_datad.restic.records import KeyFile

CHEAP = Scrypt(n=2, r=1)

# Made by restic 0.18.0 with the password "x"; `restic cat masterkey` and `restic cat config` told what is in them.
RESTIC_KEY = (
    b'{"created":"2026-11-23T08:03:39.905661232Z","username":"root","hostname":"vm","kdf":"scrypt","N":16384,"r":8,"p":2,'
    b'"salt":"FYMEnfjlIEYRY7UxQVQzLIS8UIY0pJbbAzeJa9SFD9JN+bpKWwukpJFf9y+kSqD/KlOQnijq29BeGXcfdRwEcQ==","data":"I9HKA3J'
    b"A6maZv6JroxCzkQQbW4176RqtUSw4LpF6oN85oZR7aj7P2DZksv3YGWAk0dbk5BQHiTavs6F6tU6bKeMiNAFSMwEQLfRhEeWwLIqPCz2xPYNFXnYw"
    b'ylbsfNYsmRrZCX05SmyovF/07zdjfYZG4SdcLvOxqS2ULUpy4OjdFeIZ2P2Hl0ix5wLyR+h1QeHQQcvE9c5C7fGIbfHTWg=="}'
)
RESTIC_MASTER = {
    "mac": {"k": "mIi2eO1/zHt2xEirixv0Zg==", "r": "GXli0V1xhbCqEYxLDlSXbA=="},
    "encrypt": "2tEWfP071C+JKNQo3pPiI6IHLTqi7yOOBiYCSsxtEDs=",
}
RESTIC_CONFIG = base64.b64decode(
    "5nJ3QpcpU5DZfybrlcmr8JNvcHc0EllnZ8mkvgJqV86LtK0UyQbljJZjBrvIt3o23S4WQ9qKRhZtld0wTvMe45H47t3+D2yV10NAiD3f5uT8+2fmuuZt"
    "/iAHqrG4C6p3Rjsga+Hg18nrmdag7rtMedZhZtiAPSiAl0msaeIKunq875i/Kb3XX3dKR2ZvfKxH9Cat10jURRnN74E="
)


def random_key_file(password: str, scrypt: Scrypt = CHEAP) -> tuple[Key, KeyFile]:
    """A master key, and a key file for it."""
    key = Key.random()
    return key, make_key_file(key, password, created="", username="", hostname="", scrypt=scrypt)


class TestRestic:
    """What restic sealed opens here."""

    def test_key_file(self) -> None:
        """restic's key file opens to the master key that restic tells, and that one opens restic's config."""
        key = open_key_file(msgspec.json.decode(RESTIC_KEY, type=KeyFile), "x")
        assert RESTIC_MASTER == msgspec.json.decode(key.to_master())
        assert b'{"version":2,"id":"76228516d19226c155ca122b7d934ebbfbb1e66a54a8977581e5d12fa61a2bd3",' in key.open(
            RESTIC_CONFIG
        )

    def test_wrong_password(self) -> None:
        """Another password does not open it."""
        with pytest.raises(WrongPassword):
            open_key_file(msgspec.json.decode(RESTIC_KEY, type=KeyFile), "y")

    def test_key_file_as_restic_writes_it(self) -> None:
        """A key file that is read and written again has the same bytes."""
        assert msgspec.json.encode(msgspec.json.decode(RESTIC_KEY, type=KeyFile)) == RESTIC_KEY


class TestSeal:
    """Sealed data opens with its key, as it was, or not at all."""

    @pytest.mark.parametrize(
        ("k", "r", "nonce", "message", "tag"),
        [
            (
                "ec074c835580741701425b623235add6", "851fc40c3467ac0be05cc20404f3f700",
                "fb447350c4e868c52ac3275cf9d4327e", "f3f6", "f4c633c3044fc145f84f335cb81953de",
            ),
            (
                "75deaa25c09f208e1dc4ce6b5cad3fbf", "a0f3080000f46400d0c7e9076c834403",
                "61ee09218d29b0aaed7e154a2c5509cc", "", "dd3fab2251f11ac759f0887129cc2ee7",
            ),
        ],
    )  # fmt: skip
    def test_poly1305_aes(self, k: str, r: str, nonce: str, message: str, tag: str) -> None:
        """The seal is Poly1305-AES. Source: Bernstein 2005, "The Poly1305-AES message-authentication code", B."""
        key = Key(bytes(32), bytes.fromhex(k), bytes.fromhex(r))
        assert len(message) // 2 == len(key.open(bytes.fromhex(nonce + message + tag)))
        with pytest.raises(Damaged):
            key.open(bytes.fromhex(nonce + message + tag[:-2] + "00"))

    @given(st.binary(max_size=300))
    def test_round_trip(self, plain: bytes) -> None:
        """Sealing adds 32 bytes, never gives the same twice, and opens to what was sealed, from any kind of buffer."""
        key = Key.random()
        sealed = key.seal(plain)
        assert len(plain) + OVERHEAD == len(sealed)
        assert sealed != key.seal(plain)
        assert plain == key.open(sealed) == key.open(bytearray(sealed)) == key.open(memoryview(b"." + sealed)[1:])
        assert len(plain) + OVERHEAD == len(key.seal(memoryview(plain)))

    def test_every_flipped_bit(self) -> None:
        """A flip of any bit breaks the seal."""
        key = Key.random()
        sealed = key.seal(b"some text")
        for bit in range(8 * len(sealed)):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Damaged):
                key.open(changed)

    def test_other_key(self) -> None:
        """Another key does not open it."""
        with pytest.raises(Damaged):
            Key.random().open(Key.random().seal(b"text"))

    @pytest.mark.parametrize("length", [0, 1, 31])
    def test_too_short(self, length: int) -> None:
        """What is shorter than a seal is told to be so."""
        with pytest.raises(Damaged, match=f"not {length}"):
            Key.random().open(bytes(length))

    def test_threads(self) -> None:
        """Threads may share a key."""
        key = Key.random()
        wrong: list[bytes] = []

        def work(number: int) -> None:
            for _ in range(300):
                plain = os.urandom(number * 50)
                if key.open(key.seal(plain)) != plain:
                    wrong.append(plain)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == wrong

    @pytest.mark.parametrize("sizes", [(31, 16, 16), (32, 15, 16), (32, 16, 17)])
    def test_key_sizes(self, sizes: tuple[int, int, int]) -> None:
        """A key of other sizes is refused."""
        with pytest.raises(ValueError, match="32 \\+ 16 \\+ 16"):
            Key(*(bytes(size) for size in sizes))


class TestKeyFile:
    """A password opens the master key."""

    @pytest.mark.parametrize("password", ["x", "", "a b\n", "pässwörd 🔑", "not utf-8 \udcff"])
    def test_round_trip(self, password: str) -> None:
        """A key file opens with its password only, and has a salt as long as restic wants it."""
        key, file = random_key_file(password)
        assert key.to_master() == open_key_file(file, password).to_master()
        assert (SALT, "scrypt") == (len(file.salt), file.kdf)
        with pytest.raises(WrongPassword):
            open_key_file(file, password + "?")

    def test_defaults(self) -> None:
        """What a password is stretched with is what restic uses at least: N = 16384, r = 8."""
        assert (16384, 8, 1) == (Scrypt().n, Scrypt().r, Scrypt().p)

    @pytest.mark.parametrize(
        "scrypt", [Scrypt(n=3), Scrypt(n=0), Scrypt(n=1), Scrypt(n=-2), Scrypt(r=0), Scrypt(p=0), Scrypt(n=1 << 30),
                   Scrypt(r=1 << 28), Scrypt(p=1 << 30), Scrypt(n=1 << 70), Scrypt(p=1 << 20)]
    )  # fmt: skip
    def test_refused_parameters(self, scrypt: Scrypt) -> None:
        """Parameters that scrypt can't take, or that would fill the memory or take hours, are refused."""
        with pytest.raises(Damaged, match="parameters"):
            derive("x", bytes(SALT), scrypt)

    def test_other_kdf(self) -> None:
        """Another way of stretching is refused by its name."""
        _, file = random_key_file("x")
        with pytest.raises(Damaged, match="argon2"):
            open_key_file(msgspec.structs.replace(file, kdf="argon2"), "x")

    @pytest.mark.parametrize("master", [b"", b"{}", b'{"mac":{"k":"AA==","r":"AA=="},"encrypt":"AA=="}', b"\xff"])
    def test_no_master_key(self, master: bytes) -> None:
        """A key file that opens to something else is damaged, which another password would not mend."""
        _, file = random_key_file("x")
        data = derive("x", file.salt, CHEAP).seal(master)
        with pytest.raises(Damaged, match="master key"):
            open_key_file(msgspec.structs.replace(file, data=data), "x")

    def test_other_parameters_are_kept(self) -> None:
        """A key file made with other parameters says so, and opens."""
        key, file = random_key_file("x", replace(CHEAP, n=4, p=3))
        assert (4, 1, 3) == (file.N, file.r, file.p)
        assert key.to_master() == open_key_file(file, "x").to_master()
