"""A file that was installed says so, and whether anybody has changed it since.

Its stamp is a comment with a hash of all the rest. Without one, or with one that doesn't match, the file is somebody
else's work, and is not overwritten unasked.
"""

import re
from enum import StrEnum
from hashlib import sha256

import symbiont_datad

_STAMP = re.compile(
    r"^(?:# |<!-- )symbiont-datad \S+, written by service install, sha256 ([0-9a-f]{64})(?: -->)?\n", re.MULTILINE
)


class Standing(StrEnum):
    """How a file on disk stands to the one that would be written."""

    ABSENT = "absent"
    SAME = "same"
    OURS = "ours"
    """Written by another version or for other settings, and not changed since."""
    CHANGED = "changed"
    """Changed, or written, by somebody else."""


def stamped(text: str) -> str:
    """The text with its stamp: the first line, or in XML the second."""
    mark = f"symbiont-datad {symbiont_datad.__version__}, written by service install, sha256 {_hash(text)}"
    if not text.startswith("<?xml"):
        return f"# {mark}\n{text}"
    head, _, rest = text.partition("\n")
    return f"{head}\n<!-- {mark} -->\n{rest}"


def standing(wanted: str, found: str | None) -> Standing:
    """How `found` (None: there is no file) stands to the stamped text that is `wanted`."""
    if found is None:
        return Standing.ABSENT
    match = _STAMP.search(found)
    if match is None:
        return Standing.CHANGED
    rest = found[: match.start()] + found[match.end() :]
    if _hash(rest) != match[1]:
        return Standing.CHANGED
    return Standing.SAME if rest == _STAMP.sub("", wanted, count=1) else Standing.OURS


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
