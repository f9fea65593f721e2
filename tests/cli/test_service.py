"""`service print`, as a user types it. (What installs is tried on a machine of its own, in tests/system.)"""

from pathlib import Path

import pytest

from tests.cli.conftest import Datad


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("system", "/etc/systemd/system/symbiont-datad.service"),
        ("instance", "/etc/systemd/system/symbiont-datad@.service"),
        ("user", "/.config/systemd/user/symbiont-datad.service"),
        ("agent", "/Library/LaunchAgents/ai.symbiont.datad.plist"),
        ("daemon", "/Library/LaunchDaemons/ai.symbiont.datad."),
    ],
)
def test_files_of_any_kind_are_printed(datad: Datad, kind: str, first: str) -> None:
    """Also those of another system; as text each with its path, as JSON the same."""
    done = datad("service", "print", "--kind", kind)
    files = datad("service", "print", "--kind", kind, "--json").document["files"]
    assert (0, True) == (done.returncode, first in files[0]["path"])
    assert "".join(f"# {file['path']}\n{file['content']}\n" for file in files) == done.stdout


def test_an_older_systemd_gets_what_it_knows(datad: Datad) -> None:
    """One before 253 knows no `notify-reload`."""
    units = [datad("service", "print", "--kind", "system", "--systemd", version).stdout for version in ("252", "257")]
    assert [False, True] == ["\nType=notify-reload\n" in unit for unit in units]


def test_a_service_is_told_of_settings_and_tree_that_are_not_the_usual_ones(datad: Datad, tmp_path: Path) -> None:
    """Where they are, in a file of its own."""
    config = tmp_path / "datad.toml"
    config.write_text('root_data_dir = "/srv/agents/data"\n')
    done = datad("--config", config, "service", "print", "--kind", "system")
    assert (0, True, True) == (
        done.returncode, f"SYMBIONT_DATAD_CONFIG={config}" in done.stdout, "/srv/agents" in done.stdout,
    )  # fmt: skip


def test_what_can_not_be_printed_is_refused(datad: Datad) -> None:
    """A kind that there is not, a user that there is not, and a service for root's own tree."""
    odd = datad("service", "print", "--kind", "odd")
    assert (2, True) == (odd.returncode, "one of system, instance, user, agent, daemon" in odd.stderr)
    nobody = datad("service", "print", "--kind", "instance", "--for-user", "nobody-of-that-name")
    assert (1, True) == (nobody.returncode, "this machine knows no such user" in nobody.stderr)
    root = datad("service", "print", "--kind", "instance", "--for-user", "root")
    assert (1, True) == (root.returncode, "root has no tree of its own" in root.stderr)
