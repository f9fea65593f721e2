"""The age identity that is the daemon's key: made, read strictly, and its public half.

One file opens everything with two stock tools. restic takes the *whole* file, without the space around it, as the
password; age takes each line that is no comment, and accepts no space around it. So a key file is one line and nothing
else: then both read the same. Sources: age-encryption.org/v1, "The X25519 recipient type"; age(1), "--identity";
restic `cmd/restic/global.go`, `loadPasswordFromFile`.
"""

from pyrage import DecryptError, IdentityError, RecipientError, decrypt, encrypt, x25519

LARGEST = 4096
"""Bytes; nothing longer is looked at. An identity has 74 characters."""

_OTHERS_ALONE = "No matching keys found"
_PREFIX = b"AGE-SECRET-KEY-1"


class NoIdentity(ValueError):
    """The content is no key. The message says what it should be or is, as the end of a sentence, and quotes nothing."""


def new_identity() -> str:
    """A new identity, `AGE-SECRET-KEY-1…`, from the system's random numbers."""
    return str(x25519.Identity.generate())


def recipient_of(identity: str) -> str:
    """The public half of an identity, `age1…`: what is sealed to it opens with the identity. Raises NoIdentity."""
    return str(_parsed(identity).to_public())


class SealBroken(ValueError):
    """Sealed content is damaged, or was never sealed."""


def seal(content: bytes, recipient: str) -> bytes:
    """Content sealed to a recipient (`age1…`): `age -d -i KEY` opens it. Raises NoIdentity."""
    try:
        return bytes(encrypt(content, [x25519.Recipient.from_str(recipient)]))
    except RecipientError:
        raise NoIdentity("is no age recipient (age1…)") from None


def unseal(content: bytes, identity: str) -> bytes | None:
    """What is in sealed content; None when it is sealed to others alone. Raises SealBroken, or NoIdentity."""
    try:
        return bytes(decrypt(content, [_parsed(identity)]))
    except DecryptError as error:
        if str(error) == _OTHERS_ALONE:
            return None
        raise SealBroken(f"age can't open it: {error}") from None


def read_identity(content: bytes) -> str:
    """The identity in a key file's content: one line, which may end with a newline. Raises NoIdentity."""
    line = content.removesuffix(b"\n")
    problem = _problem(line)
    if problem:
        raise NoIdentity(problem)
    identity = line.decode("ascii")
    _parsed(identity)
    return identity


def _parsed(identity: str) -> x25519.Identity:
    try:
        return x25519.Identity.from_str(identity)
    except IdentityError:
        raise NoIdentity("is a damaged age identity: its checksum is wrong, so some character is") from None


_OTHERS = (
    (b"AGE-PLUGIN-", "is the identity of an age plugin, and not one that holds its own secret (AGE-SECRET-KEY-1…)"),
    (b"AGE-SECRET-KEY-PQ-", "is another kind of age identity (post-quantum); it must begin with AGE-SECRET-KEY-1"),
    (b"age1", "is an age recipient, the public half of a key; the identity begins with AGE-SECRET-KEY-1"),
    (b"age-encryption.org/", "is sealed with age itself; the daemon has nobody to ask for a passphrase"),
    (b"-----BEGIN AGE ENCRYPTED FILE", "is sealed with age itself; the daemon has nobody to ask for a passphrase"),
    (b"-----BEGIN", "is an SSH or another PEM key; it must be one age identity (AGE-SECRET-KEY-1…)"),
    (b"ssh-", "is an SSH public key; it must be one age identity (AGE-SECRET-KEY-1…)"),
)


def _problem(line: bytes) -> str:
    """What keeps a line from being an identity; empty when only its checksum is left to look at."""
    if not line.strip(b" \t\r\n\0"):
        return "is empty" if not line else "holds nothing but blanks, newlines or NUL bytes"
    for beginning, problem in _OTHERS:
        if line.lstrip().startswith(beginning):
            return problem
    if not line.upper().count(_PREFIX):
        return "must be one age identity (AGE-SECRET-KEY-1…), and is something else"
    if line.count(_PREFIX) > 1:
        return "must be one age identity, and holds several"
    if b"\n" in line.rstrip(b"\r\n"):
        comments = ", as age-keygen writes them" if b"\n#" in b"\n" + line else ""
        return (
            "must be one line, the identity, because restic takes the whole file as the password; "
            f"it has other lines as well{comments}: keep only the line that begins with AGE-SECRET-KEY-1"
        )
    if line.endswith((b"\r", b"\n")):
        return "must end after the identity with one newline; it has Windows line ends or empty lines"
    if line.strip() != line:
        return "must have no blanks before or after the identity; age does not accept them"
    if not line.startswith(_PREFIX) or not line.isascii() or line.upper() != line:
        return "must be an age identity in capital letters, with nothing before or after it"
    return ""
