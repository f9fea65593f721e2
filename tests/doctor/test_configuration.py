"""The settings' files, and the secrets in them."""

from pathlib import Path

import pytest

from symbiont_datad import settings_places
from symbiont_datad.doctor import configuration
from symbiont_datad.doctor.configuration import Configuration
from symbiont_datad.jobs.context import job_settings
from symbiont_datad.settings import load

ME = 1000
GOOD = Configuration("/c/datad.toml", (), ME, 0o644, (), "", {})


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        pytest.param([], GOOD, id="good"),
        pytest.param([], Configuration(None, (), 0, 0o600, (), "", {}), id="no file"),
        pytest.param(["settings_open"], Configuration("/c", (), ME, 0o666, (), "", {}), id="everybody can write"),
        pytest.param(
            ["secret_readable"], Configuration("/c", (), ME, 0o644, ("backup.password",), "", {}), id="readable secret"
        ),
        pytest.param([], Configuration("/c", (), ME, 0o600, ("backup.password",), "", {}), id="a closed one"),
        pytest.param(["settings_of_another"], Configuration("/c", (), 7, 0o600, (), "", {}), id="somebody else's"),
        pytest.param(["settings_passed_over"], Configuration("/c", ("/e",), ME, 0o600, (), "", {}), id="two files"),
        pytest.param(["secret_unusable"], Configuration("/c", (), ME, 0o600, (), "no key", {}), id="no key"),
    ],
)
def test_judging(kinds: list[str], seen: Configuration) -> None:
    """Each finding says what to do."""
    found = configuration.judge(seen, ME).findings
    assert kinds == [one.kind for one in found]
    assert all(one.detail and one.remedy for one in found)


def test_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that is read and the one that is not, a password in it, a key that is not there, what is changed."""
    home, system = tmp_path / "home", tmp_path / "etc.toml"
    (home / ".symbiont").mkdir(parents=True)
    file = home / ".symbiont" / "datad.toml"
    file.write_text('backup_count = 9\nenable_encryption = true\n[backup]\npassword = "hunter22"\n')
    file.chmod(0o640)
    system.write_text("")
    monkeypatch.setattr(configuration, "SYSTEM_FILE", system)
    monkeypatch.setattr(settings_places, "RUN_SECRETS", tmp_path / "none")
    environ = {"HOME": str(home)}
    loaded = load(environ=environ)
    seen = configuration.look(loaded, job_settings(loaded.settings).repository.secrets, environ)
    assert (str(file), (str(system),), 0o640) == (seen.file, seen.passed_over, seen.mode)
    assert ("backup.password",) == seen.in_file
    assert "there is no such file" in seen.secrets
    assert {"backup_count", "enable_encryption", "backup.password"} == set(seen.changed)
    told = configuration.judge(seen, seen.owner)
    assert {"secret_unusable", "secret_readable", "settings_passed_over"} == {one.kind for one in told.findings}
    assert "hunter22" not in repr(told)
