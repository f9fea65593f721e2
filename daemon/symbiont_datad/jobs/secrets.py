"""The secrets that the settings lead to: the repository's password, and the key that it is when encryption is on.

They reach a job's process through its pipe, and are never part of a command line, of a log line or of a message.
"""

import codecs
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from symbiont_datad.errors import DatadError, SettingsError
from symbiont_datad.fsops.secret import GROUP_MAY_READ, OWNER_ALONE, read_secret
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings

_LARGEST_PASSWORD = 64 << 10

_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What Go's `strings.TrimSpace` takes off both ends; `str.strip` would take a few control characters more."""

_MAKE_ONE = "make one with `symbiont-datad key new`"


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where the secrets are, or what they are, as plain data; its text and its `repr` hide them.

    `encrypted`: `enable_encryption`. `key` and `key_file`: the age identity, or the file that holds it. `password` and
    `password_file`: those of a repository that has a password of its own.
    """

    encrypted: bool
    key_file: Path
    key: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    password: str | None = field(default=None, repr=False)


def secrets_of(settings: "Settings") -> Secrets:
    """The part of the settings that leads to secrets. Reads no file."""
    key, password = settings.encryption.key, settings.backup.password
    return Secrets(
        encrypted=settings.enable_encryption,
        key_file=settings.encryption.key_file,
        key=key.get_secret_value() if key else None,
        password_file=settings.backup.password_file,
        password=password.get_secret_value() if password else None,
    )


def check_secrets(secrets: Secrets) -> None:
    """Whether every secret that the settings ask for is there and can be used. Raises SettingsError.

    With encryption on, that is the key even when the repository has its own password: other files are sealed with it.
    """
    if secrets.encrypted:
        age_identity(secrets)
    repository_password(secrets)


def repository_password(secrets: Secrets) -> str:
    """The password of the snapshot repository; empty when it has none.

    `backup.password` comes first, then `backup.password_file`, then, with encryption on, the key. Bytes of a file that
    are no UTF-8 are lone surrogates (PEP 383). Raises SettingsError.
    """
    if secrets.password is not None:
        return secrets.password
    if secrets.password_file is not None:
        return password_in(secrets.password_file, f'backup.password_file = "{printable(str(secrets.password_file))}"')
    return age_identity(secrets) if secrets.encrypted else ""


def age_identity(secrets: Secrets) -> str:
    """The key, `AGE-SECRET-KEY-1…`: `encryption.key`, else the line in `encryption.key_file`. Raises SettingsError."""
    from symbiont_datad.formats.age import NoIdentity, read_identity

    if secrets.key is None:
        return identity_in(secrets.key_file, f'encryption.key_file = "{printable(str(secrets.key_file))}"')
    try:
        return read_identity(os.fsencode(secrets.key))
    except NoIdentity as error:
        raise SettingsError(f"encryption.key: {error}; {_MAKE_ONE}") from None


def identity_in(file: Path, name: str) -> str:
    """The identity in a key file; `name` begins the message of the SettingsError that is raised when there is none."""
    # Most processes that carry settings about never open a key, and age's library is 3 MiB of memory.
    from symbiont_datad.formats.age import LARGEST, NoIdentity, read_identity

    try:
        return read_identity(read_secret(file, OWNER_ALONE, LARGEST))
    except FileNotFoundError:
        raise SettingsError(f"{name}: there is no such file; {_MAKE_ONE}, or put your copy of it there") from None
    except NoIdentity as error:
        raise SettingsError(f"{name}: {error}") from None
    except (DatadError, OSError) as error:
        raise _unread(name, error) from None


def password_in(file: Path, name: str) -> str:
    """The password in a file, read as restic reads it, so that both open the same repository.

    `name` begins the message of the SettingsError that is raised when there is none.

    Without a byte order mark, UTF-16 turned into UTF-8, and without the space around it (restic
    `cmd/restic/global.go`, `loadPasswordFromFile`, and `internal/textfile`).
    """
    try:
        content = read_secret(file, GROUP_MAY_READ, _LARGEST_PASSWORD)
    except FileNotFoundError:
        raise SettingsError(f"{name}: there is no such file") from None
    except (DatadError, OSError) as error:
        raise _unread(name, error) from None
    try:
        if content.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
            text = content.decode("utf-16")
        else:
            text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: must be text; its byte order mark says UTF-16, which it is not") from None
    password = text.strip(_BLANKS)
    if not password:
        raise SettingsError(f"{name}: must hold a password, and is empty; without the setting there is no password")
    return password


def _unread(name: str, error: DatadError | OSError) -> SettingsError:
    if isinstance(error, OSError):
        return SettingsError(f"{name}: can't be read: {error.strerror or error}")
    return SettingsError(f"{name}: {error}")
