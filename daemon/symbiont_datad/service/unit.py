"""The text of systemd's units: the shipped ones made to fit a machine, and drop-ins for what settings ask for. Pure.

The shipped files (`systemd/` in the source) are good as they are on any machine with a systemd of the last years; what
a newer one can do better, and where the program lies, is put in here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

NOTIFY_RELOAD = 253
"""The systemd from which on `Type=notify-reload` is known (NEWS of systemd, 253)."""
_SINCE = {"RestartSteps": 254, "RestartMaxDelaySec": 254}
"""Settings that an older systemd would complain of at each start."""
_IMPORTED = 254, 257
"""From the first on `ImportCredential=` is known, which says nothing of what is not there; from the second on it also
gives what it finds another name."""
_RELOAD_ITSELF = re.compile(r"(?:^# From systemd 253 on.*\n(?:^#.*\n)*)?^Type=notify\n^ExecReload=.*\n", re.MULTILINE)
_EXEC_START = re.compile(r"^ExecStart=\S*symbiont-datad run$", re.MULTILINE)


def adapted(text: str, systemd: int, program: str) -> str:
    """A shipped unit for a machine with this version of systemd and the program at this absolute path."""
    if systemd >= NOTIFY_RELOAD:
        text = _RELOAD_ITSELF.sub("Type=notify-reload\n", text, count=1)
    for name, since in _SINCE.items():
        if systemd < since:
            text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
    if systemd >= _IMPORTED[0]:
        text = re.sub(r"^LoadCredential=(\w+)$", r"ImportCredential=\1", text, flags=re.MULTILINE)
    if systemd >= _IMPORTED[1]:
        text = re.sub(r"^LoadCredential=(\w+):([^/\s]+)$", r"ImportCredential=\2:\1", text, flags=re.MULTILINE)
    return _EXEC_START.sub(lambda _: f"ExecStart={quoted(program)} run", text, count=1)


def quoted(text: str) -> str:
    """A word of a command line or of a list of paths (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers")."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def assigned(name: str, value: str) -> str:
    """An `Environment=` line; in its values a dollar sign is one (systemd.exec(5))."""
    return "Environment=" + quoted(f"{name}={value}").replace("$$", "$")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a service's own files lie that are not where its unit has them.

    `variables` for its environment. `writable` directories must be there when it starts. `hidden`: those are in home
    directories, of which the service sees nothing else.
    """

    variables: tuple[tuple[str, str], ...] = ()
    writable: tuple[str, ...] = ()
    hidden: bool = False


def drop_in(places: Places) -> str:
    """The drop-in for such places; empty when there is nothing to say."""
    lines: list[str] = []
    if places.writable:
        lines += ["[Unit]", *_each("RequiresMountsFor", places.writable), ""]
    if places.writable or places.variables:
        lines += ["[Service]", *(assigned(name, value) for name, value in places.variables)]
    if places.hidden and places.writable:
        lines += ["ProtectHome=tmpfs", "BindPaths=", *_each("BindPaths", places.writable)]
    else:
        lines += _each("ReadWritePaths", places.writable)
    return "".join(f"{line}\n" for line in lines)


def _each(name: str, paths: Iterable[str]) -> list[str]:
    return [f"{name}={quoted(path)}" for path in paths]


def instance(user: str) -> str:
    """The unit of one user, `symbiont-datad@ada.service`. Raises ValueError for a name that no unit can have."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", user):
        raise ValueError(f"{user!r} can't be part of a unit's name")
    return f"symbiont-datad@{user}.service"
