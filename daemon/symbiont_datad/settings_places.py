"""Where settings are read from, and where they put the daemon's own directory: for those who need no more than that.

A probe runs every few seconds and asks for one directory. The settings' model would take it half a second of processor
time and three times the memory, and a file that was made wrong after the daemon had read it would fail the probe.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

PREFIX = "SYMBIONT_DATAD_"
CONFIG_VARIABLE = "SYMBIONT_DATAD_CONFIG"
SYSTEM_FILE = Path("/etc/symbiont/datad.toml")
RUN_SECRETS = Path("/run/secrets")

_LARGEST_FILE = 4 * 1024 * 1024
_ROOT, _OWN = "root_data_dir", "daemon_dir"
_USUAL = "~/.symbiont/data"


class Unsure(Exception):
    """Only the settings' model can tell."""


def daemon_dir(config_file: Path | None, root: Path | None, environ: Mapping[str, str]) -> Path:
    """The directory that `settings.load` would find as `daemon_dir`, given the same.

    `root` is the absolute path of `--root`. Raises Unsure for what is anything but a plain absolute path: the model
    then judges it.
    """
    home = home_directory(environ)
    return _own(_given(config_file, root, environ, home), environ, home)


def root_and_daemon_dir(config_file: Path | None, root: Path | None, environ: Mapping[str, str]) -> tuple[Path, Path]:
    """The same for the data directory and the daemon's own, for commands that only look."""
    home = home_directory(environ)
    given = _given(config_file, root, environ, home)
    return _plain(given.get(_ROOT, _USUAL), home), _own(given, environ, home)


def _given(
    config_file: Path | None, root: Path | None, environ: Mapping[str, str], home: Path | None
) -> dict[str, str]:
    given: dict[str, str] = {_ROOT: str(root)} if root is not None else {}
    for source in (_variables(environ), _file(config_file, environ, home), _credentials(environ)):
        for name, value in source.items():
            given.setdefault(name, value)
    return given


def _own(given: Mapping[str, str], environ: Mapping[str, str], home: Path | None) -> Path:
    if _OWN in given:
        return _plain(given[_OWN], home)
    state = state_directory(environ)
    if state is not None:
        return state / "datad"
    return _plain(given.get(_ROOT, _USUAL), home).parent / "datad"


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for variable, value in environ.items():
        name = variable.lower().removeprefix(PREFIX.lower())
        if name in (_ROOT, _OWN) and variable.upper().startswith(PREFIX):
            if name in found:  # in capitals and in small letters
                raise Unsure
            found[name] = value
    return found


def _file(config_file: Path | None, environ: Mapping[str, str], home: Path | None) -> dict[str, str]:
    if config_file is None and (named := environ.get(CONFIG_VARIABLE)) is not None:
        config_file = _plain(named, home)
    for file in (config_file,) if config_file is not None else usual_files(home, SYSTEM_FILE):
        try:
            return _texts(tomllib.loads(content_of(file).decode("utf-8")))
        except (FileNotFoundError, NotADirectoryError) as error:
            if config_file is not None:
                raise Unsure from error
        except (OSError, ValueError, RecursionError) as error:
            raise Unsure from error
    return {}


def _texts(table: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (_ROOT, _OWN):
        value = table.get(name)
        if isinstance(value, str):
            found[name] = value
        elif value is not None:
            raise Unsure
    return found


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Nobody makes a secret of these two; who did needs the model."""
    for directory in secret_directories(environ, RUN_SECRETS):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        if any(name.lower().removeprefix(PREFIX.lower()) in (_ROOT, _OWN) for name in names):
            raise Unsure
    return {}


def _plain(text: str, home: Path | None) -> Path:
    if text.startswith("~/") and home is not None:
        text = f"{home}{text[1:]}"
    path = Path(text)
    if not text.startswith("/") or text.startswith("//") or ".." in path.parts or not text.isprintable():
        raise Unsure
    return path


# What the loader of all settings reads in the same way


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """What `~` stands for: `$HOME`, else what the system knows of this user."""
    home = environ.get("HOME")
    if not home:
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if home.startswith("/") and "\0" not in home else None


def usual_files(home: Path | None, system: Path) -> tuple[Path, ...]:
    """The files of which the first that exists is read when none is named: the user's own, then the `system`'s."""
    return (*([home / ".symbiont" / "datad.toml"] if home else []), system)


def content_of(file: Path) -> bytes:
    """What is in a settings file or a credential. Raises OSError, and ValueError when it is larger than one can be."""
    with open(file, "rb") as stream:
        found = stream.read(_LARGEST_FILE + 1)
    if len(found) > _LARGEST_FILE:
        raise ValueError("it is larger than 4 MiB")
    return found


def secret_directories(environ: Mapping[str, str], run_secrets: Path) -> Iterator[Path]:
    """Where credentials lie, one a file: those of systemd (systemd.exec(5), `LoadCredential=`), and a container's."""
    named = environ.get("CREDENTIALS_DIRECTORY", "")
    if named.startswith("/") and "\0" not in named:
        yield Path(named)
    yield run_secrets


def state_directory(environ: Mapping[str, str], variable: str = "STATE_DIRECTORY") -> Path | None:
    """The first directory that the service manager names in `variable` (systemd.exec(5), `StateDirectory=`)."""
    first = environ.get(variable, "").split(":")[0]
    return Path(first) if first.startswith("/") and "\0" not in first else None
