"""Taking secrets and names out of text, so that it can be shown to strangers.

A secret becomes `[secret]`. A name that users or agents chose becomes `~` and six hexadecimal digits: the same name the
same digits within one archive, others in the next one, and nobody can go back from them.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SECRET = "[secret]"  # noqa: S105  # what stands for one
_SHORTEST_SECRET = 4
_SHORTEST_NAME = 3

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Za-z]+")
_ENDING = re.compile(
    r"(?:\.(?:backup|\d{1,12}|json|jsonl|gz|zst|tar|age|log|db|sqlite3?|wal|shm|tmp|lance|md|txt|yaml|toml|bin|faiss|"
    r"manifest|\d{8}T\d{6}Z(?:-\d+)?))+$"
)
_TOLD = re.compile(r"\d{4}-\d{2}-\d{2}(?:\.tar(?:\.\w+)*)?|\d{8}T\d{6}Z(?:-\d+)?|archive_\d+|item|record\.json|files")
"""Parts of a path that are times, or our own."""
_TOKEN = re.compile(r"[\w.-]*\w")


@dataclass(frozen=True, slots=True)
class Scrub:
    """What is to be taken out. `key` makes the digits. `secrets` are taken out wherever they stand.

    `names`: of files and directories in the tree, without endings; `long_names` are those with blanks or signs in
    them. `known`: words that are ours and stay, also as a part of a path. `places`: texts that stand for others, such
    as a home directory, the longest first.
    """

    key: bytes
    secrets: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    long_names: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    places: tuple[tuple[str, str], ...] = ()

    def text(self, text: str) -> str:
        """The text without any of it."""
        for secret in self.secrets:
            text = text.replace(secret, SECRET)
        text = _IDENTITY.sub(SECRET, _USER_IN_URL.sub(f"{SECRET}@", text))
        for place, word in self.places:
            text = text.replace(place, word)
        for name in self.long_names:
            text = text.replace(name, self.name(name))
        text = _UUID.sub(lambda found: self.name(found[0]), text)
        return _TOKEN.sub(self._token, text)

    def path(self, path: str) -> str:
        """A path relative to the root: what is declared stays, and endings and times; what else there is in it goes."""
        return "/".join(self._part(part) for part in path.split("/"))

    def value(self, value: Any) -> Any:
        """A value of JSON, all texts in it scrubbed; the names in its objects are ours and stay."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {name: self.value(inner) for name, inner in value.items()}
            case list() | tuple():
                return [self.value(inner) for inner in value]
        return value

    def name(self, name: str) -> str:
        """What stands for a name."""
        return f"~{hmac.digest(self.key, name.encode('utf-8', 'surrogatepass'), 'sha256').hex()[:6]}"

    def _part(self, part: str) -> str:
        if not part or part in self.known or _TOLD.fullmatch(part) or part.startswith("~"):
            return part
        stem, ending = parted(part)
        return f"{self.name(stem)}{ending}" if stem else part

    def _token(self, found: re.Match[str]) -> str:
        token = found[0]
        if token in self.known:
            return token
        stem, ending = parted(token)
        return f"{self.name(stem)}{ending}" if stem in self.names and stem not in self.known else token


def parted(name: str) -> tuple[str, str]:
    """A file's name without its endings, and those; a name that is nothing but endings has no stem."""
    found = _ENDING.search(name)
    return (name[: found.start()], found[0]) if found else (name, "")


def scrub_for(
    key: bytes,
    secrets: Iterable[str],
    names: Iterable[str],
    known: Iterable[str],
    places: Mapping[str, str],
) -> Scrub:
    """A scrub for these; secrets and names that are too short to tell anything are left out."""
    stems = {stem for name in names if len(stem := parted(name)[0]) >= _SHORTEST_NAME}
    plain = {stem for stem in stems if _TOKEN.fullmatch(stem)}
    return Scrub(
        key,
        tuple(sorted({one for one in secrets if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)),
        frozenset(plain),
        tuple(sorted(stems - plain, key=len, reverse=True)),
        frozenset(known),
        tuple(sorted(places.items(), key=lambda one: len(one[0]), reverse=True)),
    )
