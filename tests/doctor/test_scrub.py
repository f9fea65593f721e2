"""Taking secrets and names out of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.doctor.scrub import parted, scrub_for

SCRUB = scrub_for(
    b"k" * 16,
    ["hunter2-and-more", "abc"],
    ["payroll-bot.json.gz", "Ana Lyst.log", "backup.json", "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11.json"],
    ["state", "agents", "backup"],
    {"/home/ada": "~"},
)
BOT, ANA, ID = (SCRUB.name(name) for name in ("payroll-bot", "Ana Lyst", "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11"))


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("the password is [secret].", "the password is hunter2-and-more."),
        ("abc is too short to be taken out", "abc is too short to be taken out"),
        (f"{BOT} and {BOT}.log.20261126T031500Z-0001", "payroll-bot and payroll-bot.log.20261126T031500Z-0001"),
        (f"process 7 ({ANA}) appends", "process 7 (Ana Lyst) appends"),
        (f"agent {ID}: gone", "agent 0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11: gone"),
        ("~/.symbiont/data", "/home/ada/.symbiont/data"),
        ("a backup ran", "a backup ran"),
        ("s3://[secret]@host/x", "s3://key:word@host/x"),
        ("[secret]", "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQ"),
    ],
)
def test_texts(expected: str, text: str) -> None:
    """Secrets and names go; what is ours stays, so that the sentence can be read."""
    assert expected == SCRUB.text(text)


@pytest.mark.parametrize(
    ("expected", "path"),
    [
        (f"state/agents/{BOT}.json.gz", "state/agents/payroll-bot.json.gz"),
        (
            f"state/agents/{SCRUB.name('never seen')}.json.backup.1795729283.json",
            "state/agents/never seen.json.backup.1795729283.json",
        ),
        ("", ""),
        ("state/2026-11-26/20261126T031500Z-1", "state/2026-11-26/20261126T031500Z-1"),
    ],
)
def test_paths(expected: str, path: str) -> None:
    """Of a path what is declared stays, and endings and times, whether its name was seen in the tree or not."""
    assert expected == SCRUB.path(path)


def test_the_next_archive_has_other_digits() -> None:
    """What stands for a name can't be compared from one to the next."""
    assert scrub_for(b"l" * 16, (), (), (), {}).name("payroll-bot") != BOT


def test_values() -> None:
    """Texts in lists and objects are scrubbed, numbers stay."""
    assert {"a": [f"{BOT}", 1, None]} == SCRUB.value({"a": ("payroll-bot", 1, None)})


@given(st.text(max_size=40))
def test_a_name_is_its_parts(name: str) -> None:
    """Nothing is lost between a stem and its endings, and no text raises."""
    assert name == "".join(parted(name))
    SCRUB.text(name)
    SCRUB.path(name)
