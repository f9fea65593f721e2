"""What installing the service goes by: the machine as it is, and the settings as the service will see them."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from symbiont_datad.errors import DatadError
from symbiont_datad.report import printable
from symbiont_datad.service.target import STATE, Account, Kind, Machine, Wanted
from symbiont_datad.service.unit import Places
from symbiont_datad.settings import Loaded, Settings, load
from symbiont_datad.settings_places import CONFIG_VARIABLE, PREFIX
from symbiont_datad.settings_sections import is_loopback

_ROOT = f"{PREFIX}ROOT_DATA_DIR"
_RUNNING = Path("/run/systemd/system")
"""There while systemd runs the machine (sd_booted(3))."""


def machine() -> Machine:
    """The machine, as this process sees it."""
    program = _program()
    return Machine(
        macos=sys.platform == "darwin",
        me=account(os.geteuid()),
        systemd=systemd_version() if _RUNNING.is_dir() else None,
        program=program,
        needs=tuple(dict.fromkeys(os.path.realpath(path) for path in (program, sys.prefix, sys.base_prefix))),
    )


def account(who: str | int) -> Account:
    """A user of the machine, by name or number. Raises DatadError when there is none."""
    try:
        found = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        raise DatadError(f"{printable(str(who))}: this machine knows no such user") from None
    return Account(found.pw_name, found.pw_uid, found.pw_dir)


def systemd_version() -> int | None:
    """The number in `systemd 257 (257.13-1)`; None where there is no systemd."""
    command = shutil.which("systemctl")
    if command is None:
        return None
    result = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30)
    match = re.match(r"systemd (\d+)", result.stdout)
    return int(match[1]) if match else None


def _program() -> str:
    """Where the command is that was typed; of `python -m symbiont_datad` the one beside that Python."""
    typed = os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "symbiont-datad")
    return typed if os.path.basename(typed) == "symbiont-datad" else beside


def wanted(kind: Kind, who: Account, config: Path | None, root: Path | None) -> Wanted:
    """What the settings ask of a service of this kind. Raises SettingsError when it could not start with them."""
    home = _home(kind, who)
    default = usual(kind, who).data[0]
    settings = as_seen_by(kind, who, config, root).settings
    chosen = str(settings.root_data_dir)
    http = settings.http.listen
    unit_has = f"/home/{who.name}/.symbiont/data" if kind is Kind.INSTANCE else default
    variables = [(_ROOT, chosen)] if chosen != unit_has else []
    if config is not None:
        variables.append((CONFIG_VARIABLE, _visible(kind, home, os.path.abspath(config))))
    writable = tuple(dict.fromkeys(_writable(kind, who, settings)))
    needed = (f"{home}/.symbiont",) if kind is Kind.INSTANCE else writable
    return Wanted(
        kind=kind,
        account=who,
        places=Places(tuple(variables), writable, kind is Kind.INSTANCE or any(map(_in_home, writable))),
        network=settings.repository_path() is None or (http is not None and not is_loopback(http)),
        loopback=http is not None and is_loopback(http),
        missing=tuple(path for path in needed if not os.path.isdir(path)),
        data=(str(settings.root_data_dir), settings.backup.repository or "", str(settings.daemon_dir)),
    )


def as_seen_by(kind: Kind, who: Account, config: Path | None, root: Path | None) -> Loaded:
    """The settings as a service of this kind loads them: without this shell's environment. Raises SettingsError."""
    environ = {"HOME": _home(kind, who), **({"STATE_DIRECTORY": STATE} if kind is Kind.SYSTEM else {})}
    found = load(config, {"root_data_dir": str(root)} if root is not None else {}, environ)
    default = usual(kind, who).data[0]
    chosen = default if found.origins["root_data_dir"] == "default" else str(found.settings.root_data_dir)
    return load(config, {}, {**environ, _ROOT: chosen})


def _home(kind: Kind, who: Account) -> str:
    return STATE if kind is Kind.SYSTEM else who.home


def usual(kind: Kind, who: Account) -> Wanted:
    """The same where the settings can't be read: nothing more than the unit has, and data in the usual places."""
    base = STATE if kind is Kind.SYSTEM else f"{who.home}/.symbiont"
    return Wanted(kind, who, data=(f"{base}/data", f"{base}/backups", f"{base}/datad"))


def _visible(kind: Kind, home: str, config: str) -> str:
    if kind in (Kind.SYSTEM, Kind.INSTANCE) and _in_home(config) and not _is_in(config, f"{home}/.symbiont"):
        raise DatadError(f"{printable(config)}: a service of the machine can't see this; put it into /etc/symbiont")
    return config


def _writable(kind: Kind, who: Account, settings: Settings) -> Iterator[str]:
    """Directories that the service writes into and its unit does not open."""
    if kind not in (Kind.SYSTEM, Kind.INSTANCE):
        return
    opened = STATE if kind is Kind.SYSTEM else f"/home/{who.name}/.symbiont"
    made = STATE if kind is Kind.SYSTEM else f"{who.home}/.symbiont"
    repository = settings.repository_path()
    textfile = settings.metrics.textfile
    own = (settings.root_data_dir.parent, settings.daemon_dir, *([repository] if repository else []))
    for path in (*own, *([textfile.parent] if textfile is not None else [])):
        if _is_in(str(path), opened):
            continue
        yield made if _is_in(str(path), made) else str(path)


def _is_in(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")


def _in_home(path: str) -> bool:
    return any(_is_in(path, directory) for directory in ("/home", "/root", "/run/user"))
