"""The service as the doctor sees it. A real one is in tests/system."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.doctor import installation
from symbiont_datad.doctor.installation import Installation, Service
from symbiont_datad.service.target import Kind
from symbiont_datad.settings import load
from tests.support import run_as

OURS = Service("symbiont-datad.service", Kind.USER, "/t", "active", "enabled", "journalctl --user", {}, {})


@pytest.mark.parametrize(
    ("kinds", "services"),
    [
        pytest.param([], [OURS], id="good"),
        pytest.param([], [], id="none"),
        pytest.param(["service_down"], [replace(OURS, active="failed")], id="failed"),
        pytest.param(["service_disabled"], [replace(OURS, enabled="disabled")], id="not at boot"),
        pytest.param(["service_outdated"], [replace(OURS, files={"/u": "ours"})], id="an older unit"),
        pytest.param(["settings_differ"], [replace(OURS, differ={"backup_count": "environment X"})], id="shell"),
        pytest.param(["keeps_another_tree"], [OURS, replace(OURS, keeps="/other")], id="one more"),
    ],
)
def test_judging(kinds: list[str], services: list[Service]) -> None:
    """Each finding says what to do, in the words of the service manager."""
    found = installation.judge(Installation("/t", "systemd", tuple(services)), running=True).findings
    assert kinds == [one.kind for one in found]
    assert all(one.detail and one.remedy for one in found)


def test_without_a_service_manager_nothing_is_wrong() -> None:
    """In a container the daemon is run by what runs the container."""
    assert () == installation.judge(Installation("/t", ""), running=False).findings


def test_settings_that_differ_are_named_with_where_they_are_from(tmp_path: Path) -> None:
    """What only the environment of this shell says; what follows from another home is not told."""
    environ = {"HOME": str(tmp_path), "SYMBIONT_DATAD_BACKUP_COUNT": "9"}
    here, there = load(environ=environ), load(environ={"HOME": str(tmp_path / "other")})
    assert {"backup_count": "environment SYMBIONT_DATAD_BACKUP_COUNT"} == installation._differing(here, there)


def test_a_service_manager_that_can_not_be_asked_is_told_of() -> None:
    """A note: who has the service may ask for himself."""
    found = installation.judge(Installation("/t", "systemd", (), "no session of this user"), running=False)
    assert [("service_unseen", "info", "no session of this user")] == [
        (one.kind, one.severity, one.detail) for one in found.findings
    ]


def test_a_user_whom_the_machine_does_not_know_has_no_service(tmp_path: Path) -> None:
    """As in many a container."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    loaded = load(environ={"HOME": str(tmp_path)})
    found = run_as(54_321, lambda: installation.look(loaded, None, None))
    assert Installation(str(loaded.settings.root_data_dir), "") == found
