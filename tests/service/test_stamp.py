"""Whose file it is: told by its stamp, whatever was done to it."""

import pytest

from symbiont_datad.service.stamp import Standing, stamped, standing

UNIT = "[Unit]\nDescription=x\n"
PLIST = '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"/>\n'


@pytest.mark.parametrize("text", [UNIT, PLIST, ""])
def test_what_was_written_is_known_again(text: str) -> None:
    """A file as it was written stands as the same, one of other content as ours."""
    assert Standing.SAME is standing(stamped(text), stamped(text))
    assert Standing.OURS is standing(stamped(text), stamped(f"{text}other\n" if text != PLIST else PLIST + "\n"))
    assert Standing.ABSENT is standing(stamped(text), None)


def test_another_version_of_the_same_file_is_the_same() -> None:
    """The version in the stamp alone makes no difference."""
    older = stamped(UNIT).replace("symbiont-datad ", "symbiont-datad 0.0.", 1)
    assert older != stamped(UNIT)
    assert Standing.SAME is standing(stamped(UNIT), older)


@pytest.mark.parametrize(
    "found",
    [
        UNIT,
        "",
        stamped(UNIT) + "# mine\n",
        stamped(UNIT).replace("Description=x", "Description=y"),
        "# mine\n" + stamped(UNIT),
        stamped(UNIT).replace("sha256 ", "sha256 0", 1),
    ],
)
def test_what_somebody_changed(found: str) -> None:
    """A line more, another word, a line in front, a stamp that does not match or none: changed."""
    assert Standing.CHANGED is standing(stamped(UNIT), found)


def test_in_xml_the_declaration_stays_first() -> None:
    """A comment before it would be no XML."""
    lines = stamped(PLIST).splitlines()
    assert PLIST.splitlines()[0] == lines[0]
    assert lines[1].startswith("<!-- symbiont-datad ")
