"""What the names of the runtime's state files say."""

import pytest

from symbiont_datad.formats.state_name import Role, StateName, backup_name, context_name, name_of

AGENT = "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{AGENT}.json", StateName(Role.CONTEXT, AGENT)),
        (f"{AGENT}.json.gz", StateName(Role.CONTEXT, AGENT, gzip=True)),
        (f"{AGENT}.backup.1795000000.json", StateName(Role.BACKUP, AGENT, 1795000000)),
        (f"{AGENT}.json.backup.1795000000.json", StateName(Role.BACKUP, AGENT, 1795000000, gzip=True)),
        (f"{AGENT}.json.gz.age", StateName(Role.CONTEXT, AGENT, gzip=True, sealed=True)),
        (f"{AGENT}.backup.5.json.age", StateName(Role.BACKUP, AGENT, 5, sealed=True)),
        (f"archives/{AGENT}/archive_1795000000.json", StateName(Role.ARCHIVE, AGENT, 1795000000)),
        (f"archives/{AGENT}/archive_1795000000.tmp", StateName(Role.LEFTOVER, "")),
        (f".{AGENT}.json.4711.tmp", StateName(Role.LEFTOVER, "")),
        ("support bot v1.2.json.gz", StateName(Role.CONTEXT, "support bot v1.2", gzip=True)),
        ("a\nb.json", StateName(Role.CONTEXT, "a\nb")),
        ("\udcff.backup.5.json", StateName(Role.BACKUP, "\udcff", 5)),
        ("a.backup.x.json", StateName(Role.CONTEXT, "a.backup.x")),
        ("a.backup.٣.json", StateName(Role.CONTEXT, "a.backup.٣")),
        ("notes.txt", None),
        (".json", None),
        (".json.gz", None),
        ("deeper/a.json", None),
        ("archives/a/other.json", None),
    ],
)
def test_names_are_read(path: str, expected: StateName | None) -> None:
    """Each name pattern of the runtime is known, with any stem as the agent's id."""
    assert expected == name_of(path)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("gzip", [False, True])
def test_names_are_made_as_they_are_read(gzip: bool, sealed: bool) -> None:
    """What is made of an agent and a mode says that agent and mode."""
    assert StateName(Role.CONTEXT, AGENT, 0, gzip, sealed) == name_of(context_name(AGENT, gzip=gzip, sealed=sealed))
    assert StateName(Role.BACKUP, AGENT, 7, gzip, sealed) == name_of(backup_name(AGENT, 7, gzip=gzip, sealed=sealed))
