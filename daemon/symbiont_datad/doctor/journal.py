"""The daemon's last log lines, where the journal has them."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

_PATIENCE_S = 10.0
_FIELDS = "SYMBIONT_"


def last_lines(number: int) -> Iterator[Mapping[str, Any]]:
    """The newest lines, the oldest first: `at_us` (since the epoch), `priority`, `message` and our own fields.

    Nothing where there is no journal, or where it may not be read.
    """
    command = shutil.which("journalctl")
    if command is None:
        return
    words = [command, "--no-pager", "--quiet", "-o", "json", "-n", str(number), "SYSLOG_IDENTIFIER=symbiont-datad"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return
    for line in done.stdout.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict):
            continue
        own = {name.removeprefix(_FIELDS).lower(): entry[name] for name in entry if name.startswith(_FIELDS)}
        yield {
            "at_us": entry.get("__REALTIME_TIMESTAMP"),
            "priority": entry.get("PRIORITY"),
            "message": entry.get("MESSAGE"),
            **own,
        }
