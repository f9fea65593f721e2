"""The files that come with the program: units, the message catalogue, property lists.

They lie in `systemd/` and `launchd/` of the source, and a wheel carries them beside this module.
"""

from pathlib import Path

_IN_WHEEL = Path(__file__).parent / "files"
_IN_SOURCE = Path(__file__).parents[3]


def shipped(name: str) -> str:
    """The text of one, by its path in the source (`systemd/symbiont-datad.service`)."""
    directory = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_SOURCE
    return (directory / name).read_text(encoding="utf-8")
