"""Where the daemon's own directory is: what is found without the settings' model is what the model finds."""

import os
import pwd
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbiont_datad import settings_places, settings_sources
from symbiont_datad.errors import SettingsError
from symbiont_datad.settings import load
from symbiont_datad.settings_places import Unsure, daemon_dir, home_directory, root_and_daemon_dir


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: a home, a system's file, secrets."""
    for module in (settings_places, settings_sources):
        monkeypatch.setattr(module, "SYSTEM_FILE", tmp_path / "etc/datad.toml")
        monkeypatch.setattr(module, "RUN_SECRETS", tmp_path / "secrets")
    for directory in ("etc", "secrets", "home/.symbiont", "credentials"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def by_model(config: Path | None, root: Path | None, environ: dict[str, str]) -> tuple[Path, Path] | None:
    """The data directory and the daemon's own by the loader of all settings; None when it refuses."""
    overrides = {"root_data_dir": str(root)} if root is not None else {}
    try:
        found = load(config, overrides, environ).settings
        return found.root_data_dir, found.daemon_dir
    except SettingsError:
        return None


PATHS = st.sampled_from(
    ["/srv/a/data", "/srv/b/data/", "/srv//c", "~/own/data", "relative", "//srv/x", "/srv/../x", ""]
)
TOML = st.sampled_from(
    ["", "backup_count = 'wrong'", "root_data_dir = '/srv/file/data'", "daemon_dir = '/srv/file/datad'",
     "daemon_dir = '~/datad'", "root_data_dir = 5", "no toml", "[guard]\ndaemon_dir = '/srv/not/this'"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    root=st.none() | PATHS.filter(bool).map(Path),
    variables=st.dictionaries(
        st.sampled_from(["SYMBIONT_DATAD_ROOT_DATA_DIR", "SYMBIONT_DATAD_DAEMON_DIR", "symbiont_datad_daemon_dir"]),
        PATHS,
        max_size=2,
    ),
    state=st.none() | st.sampled_from(["/var/lib/symbiont", "/var/lib/one:/var/lib/two", "no path"]),
    user=st.none() | TOML,
    system=st.none() | TOML,
    named=st.none() | TOML,
    credential=st.none() | PATHS,
)
def test_it_agrees_with_the_model(
    places: Path,
    root: Path | None,
    variables: dict[str, str],
    state: str | None,
    user: str | None,
    system: str | None,
    named: str | None,
    credential: str | None,
) -> None:
    """Whatever is set, and where: the same directory, or an honest "only the model can tell"."""
    environ = {"HOME": str(places / "home"), **variables}
    if state is not None:
        environ["STATE_DIRECTORY"] = state
    files = {
        places / "home/.symbiont/datad.toml": user,
        places / "etc/datad.toml": system,
        places / "named.toml": named,
        places / "secrets/SYMBIONT_DATAD_ROOT_DATA_DIR": credential,
    }
    for file, text in files.items():
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
    config = places / "named.toml" if named is not None else None
    expected = by_model(config, root, environ)
    if expected is None:  # another setting is wrong, which is no matter here
        return
    with suppress(Unsure):
        assert expected[1] == daemon_dir(config, root, environ)
    with suppress(Unsure):
        assert expected == root_and_daemon_dir(config, root, environ)


@pytest.mark.parametrize(
    ("environ", "toml", "expected"),
    [
        ({}, "", "{home}/.symbiont/datad"),
        ({"SYMBIONT_DATAD_ROOT_DATA_DIR": "/srv/data"}, "", "/srv/datad"),
        ({}, "root_data_dir = '~/x/data'", "{home}/x/datad"),
        ({"STATE_DIRECTORY": "/var/lib/symbiont"}, "", "/var/lib/symbiont/datad"),
        ({"SYMBIONT_DATAD_DAEMON_DIR": "/run/own"}, "daemon_dir = '/srv/other'", "/run/own"),
        ({}, "auto_save_interval = 'wrong'", "{home}/.symbiont/datad"),
    ],
)
def test_the_usual_ways_need_no_model(places: Path, environ: dict[str, str], toml: str, expected: str) -> None:
    """What people set is found at once, also while another setting of the file is wrong."""
    home = str(places / "home")
    (places / "home/.symbiont/datad.toml").write_text(toml)
    assert Path(expected.format(home=home)) == daemon_dir(None, None, {"HOME": home, **environ})


def test_a_file_that_is_named_and_gone_is_not_passed_over(places: Path) -> None:
    """The daemon goes by that file; to look elsewhere would be to ask another daemon."""
    with pytest.raises(Unsure):
        daemon_dir(places / "gone.toml", None, {"HOME": os.fspath(places / "home")})


@pytest.mark.parametrize(
    ("content", "environ"),
    [
        (b"no toml", {}),
        (b"#" * (5 << 20), {}),
        (b"", {"SYMBIONT_DATAD_DAEMON_DIR": "relative"}),
        (b"", {"SYMBIONT_DATAD_DAEMON_DIR": "/srv/../own"}),
        (b"", {"SYMBIONT_DATAD_CONFIG": "~other/x.toml"}),
    ],
)
def test_what_a_look_can_not_tell_is_left_to_the_model(places: Path, content: bytes, environ: dict[str, str]) -> None:
    """A file that is none, or too large; a path that is not plain."""
    (places / "home/.symbiont/datad.toml").write_bytes(content)
    with pytest.raises(Unsure):
        daemon_dir(None, None, {"HOME": str(places / "home"), **environ})


def test_a_file_may_be_named_by_the_environment(places: Path) -> None:
    """`~` is the home; without `$HOME` it is what the system knows of this user."""
    (places / "home/mine.toml").write_text("daemon_dir = '/srv/own'\n")
    environ = {"HOME": str(places / "home"), "SYMBIONT_DATAD_CONFIG": "~/mine.toml"}
    assert Path("/srv/own") == daemon_dir(None, None, environ)
    assert Path(pwd.getpwuid(os.getuid()).pw_dir) == home_directory({})
    assert home_directory({"HOME": "relative"}) is None
