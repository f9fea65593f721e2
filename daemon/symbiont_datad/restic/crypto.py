"""Sealing and opening: AES-256-CTR with Poly1305-AES, and the master key that a password opens.

A sealed blob is `IV(16) || ciphertext || MAC(16)`. The MAC is Poly1305 over the ciphertext, under the one-time key
`r || AES-128_k(IV)`.

Source: restic `doc/design.rst`, "Keys, Encryption and MAC".
"""

import hmac
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.poly1305 import Poly1305

from symbiont_datad.restic.errors import Damaged, WrongPassword
from symbiont_datad.restic.records import UNREADABLE, KeyFile, MacKey, MasterKey
from symbiont_datad.restic.stretching import stretch

Buffer = bytes | bytearray | memoryview

OVERHEAD = 32
"""Bytes that sealing adds: IV and MAC."""

SALT = 64
"""Bytes of a key file's salt: restic refuses every other length."""

_IV = 16
_MAC = 16


@dataclass(frozen=True, slots=True)
class Scrypt:
    """How hard a password is to guess: the parameters of scrypt. These defaults are restic's own."""

    n: int = 1 << 14
    r: int = 8
    p: int = 1


class Key:
    """A key that seals and opens. Threads may share it: each has cipher contexts of its own."""

    def __init__(self, encrypt: bytes, k: bytes, r: bytes) -> None:
        """`encrypt` has 32 bytes, `k` and `r` have 16 each."""
        if (len(encrypt), len(k), len(r)) != (32, 16, 16):
            raise ValueError("a key has 32 + 16 + 16 bytes")
        self._encrypt = encrypt
        self._k = k
        self._r = r
        self._local = threading.local()

    @classmethod
    def random(cls) -> "Key":
        """A new master key."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16))

    def _contexts(self) -> tuple[CipherContext, CipherContext]:
        """AES-CTR and the AES that makes the nonce, set up once a thread: setting up costs more than a small blob."""
        try:
            found: tuple[CipherContext, CipherContext] = self._local.contexts
        except AttributeError:
            found = (
                Cipher(AES(self._encrypt), CTR(bytes(_IV))).encryptor(),
                Cipher(AES(self._k), ECB()).encryptor(),  # noqa: S305  # one block: there is nothing to chain
            )
            self._local.contexts = found
        return found

    def seal(self, plaintext: Buffer) -> bytes:
        """The plaintext, sealed under a random IV: `OVERHEAD` bytes longer."""
        stream, block = self._contexts()
        iv = os.urandom(_IV)
        stream.reset_nonce(iv)
        ciphertext = stream.update(plaintext)
        return b"".join((iv, ciphertext, Poly1305.generate_tag(self._r + block.update(iv), ciphertext)))

    def seal_stream(self, pieces: Iterable[Buffer]) -> bytearray:
        """What `seal` makes of all pieces together, of which only one at a time is in memory besides."""
        iv = os.urandom(_IV)
        stream = Cipher(AES(self._encrypt), CTR(iv)).encryptor()  # its own: others are used between two pieces
        tag = Poly1305(self._r + self._contexts()[1].update(iv))
        sealed = bytearray(iv)
        for piece in pieces:
            ciphertext = stream.update(piece)
            tag.update(ciphertext)
            sealed += ciphertext
        sealed += tag.finalize()
        return sealed

    def open(self, sealed: Buffer) -> bytes:
        """The plaintext of a sealed blob. Raises Damaged when it was not sealed with this key, or changed since."""
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise Damaged(f"sealed data has at least {OVERHEAD} bytes, not {len(view)}")
        stream, block = self._contexts()
        iv, ciphertext = bytes(view[:_IV]), view[_IV:-_MAC]
        tag = Poly1305.generate_tag(self._r + block.update(iv), ciphertext)
        if not hmac.compare_digest(tag, view[-_MAC:]):
            raise Damaged("the seal is broken: the data changed, or another key sealed it")
        stream.reset_nonce(iv)
        return stream.update(ciphertext)

    def to_master(self) -> bytes:
        """The JSON that a key file seals."""
        return msgspec.json.encode(MasterKey(MacKey(self._k, self._r), self._encrypt))

    @classmethod
    def from_master(cls, text: bytes) -> "Key":
        """The key that this JSON describes. Raises Damaged."""
        try:
            master = msgspec.json.decode(text, type=MasterKey)
            return cls(master.encrypt, master.mac.k, master.mac.r)
        except (*UNREADABLE, ValueError) as error:
            raise Damaged(f"the master key can't be read ({error})") from None


def derive(password: str, salt: bytes, scrypt: Scrypt) -> Key:
    """The key that scrypt makes of a password. Raises Damaged for parameters that can't be used."""
    try:
        stretched = stretch(password, salt, scrypt.n, scrypt.r, scrypt.p)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise Damaged(f"scrypt refuses the key file's parameters {scrypt} ({error})") from None
    return Key(stretched[:32], stretched[32:48], stretched[48:])


def make_key_file(master: Key, password: str, *, created: str, username: str, hostname: str, scrypt: Scrypt) -> KeyFile:
    """A key file that opens to `master` with this password."""
    salt = os.urandom(SALT)
    data = derive(password, salt, scrypt).seal(master.to_master())
    return KeyFile(created, username, hostname, "scrypt", scrypt.n, scrypt.r, scrypt.p, salt, data)


def open_key_file(file: KeyFile, password: str) -> Key:
    """The master key of a key file. Raises WrongPassword, or Damaged when it is no key file that we can use."""
    if file.kdf != "scrypt":
        raise Damaged(f"the key file asks for {file.kdf!r}; only scrypt is known")
    derived = derive(password, file.salt, Scrypt(file.N, file.r, file.p))
    try:
        text = derived.open(file.data)
    except Damaged:
        raise WrongPassword("no key opens with this password") from None
    return Key.from_master(text)
