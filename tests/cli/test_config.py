"""`config show`, `config check` and `config schema` tell what is in force and what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from symbiont_datad import settings_sources
from symbiont_datad.cli.config import app
from symbiont_datad.cli.invocation import Invocation
from symbiont_datad.errors import SettingsError
from symbiont_datad.settings import Settings, leaves


class Shell:
    """Types commands in a home directory with a `datad.toml`."""

    def __init__(self, home: Path) -> None:
        self.file = home / ".symbiont" / "datad.toml"
        self.file.parent.mkdir()
        self.main = typer.Typer()
        self.main.add_typer(app)

        @self.main.callback()
        def options(ctx: typer.Context, config: Path | None = None, root: Path | None = None) -> None:
            ctx.obj = Invocation(config, root)

    def type(self, *args: str, toml: str = "") -> Result:
        """Run a command with `toml` as the user's own file."""
        self.file.write_text(toml)
        return CliRunner().invoke(self.main, args)

    def read(self, *args: str, toml: str = "") -> Any:
        """Run a command that succeeds and prints one JSON document."""
        result = self.type(*args, toml=toml)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell that sees nothing of the machine's own settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings_sources, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setattr(settings_sources, "RUN_SECRETS", tmp_path / "none")
    return Shell(tmp_path)


def test_show_tells_values_and_origins(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line has a name, a value as people write it, and its source, in columns."""
    monkeypatch.setenv("SYMBIONT_DATAD_LOGS__ROTATE_AT", "52428800")
    result = shell.type("--root", "/srv/x/data", "config", "show", toml="auto_save_interval = 90\n")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    rows = {line.split(" = ")[0].strip(): " ".join(line.split(" = ")[1].split()) for line in lines if line}
    assert rows["root_data_dir"] == '"/srv/x/data" (command line)'
    assert rows["auto_save_interval"] == f'"90s" ({shell.file})'
    assert rows["logs.rotate_at"] == '"50MiB" (environment SYMBIONT_DATAD_LOGS__ROTATE_AT)'
    assert rows["dir_permissions"] == "0o755 (default)"
    assert rows["http.listen"] == "unset (default)"
    assert rows["daemon_dir"] == '"/srv/x/datad" (default)'
    assert {line.index(" = ") for line in lines if line} == {max(map(len, rows))}


def test_show_changed(shell: Shell) -> None:
    """With --changed only what some source has set is shown."""
    result = shell.type("config", "show", "--changed", toml="[guard]\nwatch = 'off'\n")
    assert result.stdout == f'guard.watch = "off"  ({shell.file})\n'
    assert shell.type("config", "show", "--changed").stdout == ""


def test_show_as_json(shell: Shell) -> None:
    """The document has every setting once, in seconds and bytes, with its default."""
    document = shell.read("config", "show", "--json", toml="dir_permissions = '750'\nlogs.rotate_at = '1MiB'\n")
    rows = {row["name"]: row for row in document["settings"]}
    assert (1, str(shell.file)) == (document["schema"], document["file"])
    assert [leaf.name for leaf in leaves(Settings())] == [row["name"] for row in document["settings"]]
    assert {"name": "dir_permissions", "value": "0o750", "origin": str(shell.file), "default": "0o755"} == rows[
        "dir_permissions"
    ]
    assert (2**20, 50 * 2**20) == (rows["logs.rotate_at"]["value"], rows["logs.rotate_at"]["default"])
    assert (60.0, "default") == (rows["guard.reconcile_interval"]["value"], rows["guard.reconcile_interval"]["origin"])


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--changed",)])
def test_show_masks_secrets(shell: Shell, arguments: tuple[str, ...]) -> None:
    """A secret is shown as asterisks, whatever the form."""
    result = shell.type("config", "show", *arguments, toml="http.token = 'hunter2'\n")
    assert result.exit_code == 0
    assert "**********" in result.stdout
    assert "hunter2" not in result.output


def test_check_of_good_settings(shell: Shell) -> None:
    """Good settings are called so, with the file that was read."""
    result = shell.type("config", "check", toml="backup_count = 5\n")
    assert (0, f"settings are good ({shell.file})\n") == (result.exit_code, result.stdout)
    assert {"schema": 1, "valid": True, "problems": []} == shell.read("config", "check", "--json")


def test_check_of_bad_settings(shell: Shell) -> None:
    """Bad settings are a line each and exit code 2, as text and as JSON."""
    toml = "backup_count = 0\nnope = 1\n"
    expected = [
        f"nope (from {shell.file}): is not a setting",
        f"backup_count = 0 (from {shell.file}): must be at least 1",
    ]
    text, document = shell.type("config", "check", toml=toml), shell.type("config", "check", "--json", toml=toml)
    assert (2, expected) == (text.exit_code, text.stdout.splitlines())
    assert (2, {"schema": 1, "valid": False, "problems": expected}) == (document.exit_code, json.loads(document.stdout))


def test_show_of_bad_settings_raises(shell: Shell) -> None:
    """`show` leaves bad settings to the program's own error handling."""
    assert isinstance(shell.type("config", "show", toml="nope = 1\n").exception, SettingsError)


def test_an_empty_root_is_refused(shell: Shell) -> None:
    """A shell's unset variable after --root does not make a tree of the working directory."""
    result = shell.type("--root", "", "config", "check")
    assert result.exit_code == 2
    assert "must be an absolute path" in result.stdout


def test_a_relative_root_is_taken_from_here(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--root may be relative to the working directory, as paths on a command line are."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    document = shell.read("--root", "../data", "config", "show", "--changed", "--json")
    assert [str(tmp_path / "data")] == [row["value"] for row in document["settings"]]


def test_schema_for_editors(shell: Shell) -> None:
    """The schema knows every section, describes its settings, and allows no other key."""
    document = shell.read("config", "schema")
    guard = document["$defs"]["Guard"]
    assert set(Settings.model_fields) == set(document["properties"])
    assert (False, ["auto", "polling", "off"]) == (
        guard["additionalProperties"],
        guard["properties"]["watch"]["enum"],
    )
    assert ["number", "string"] == guard["properties"]["reconcile_interval"]["type"]
    assert document == shell.read("config", "schema", "--json")
