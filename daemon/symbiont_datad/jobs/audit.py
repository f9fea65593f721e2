"""The audit log: security events as JSON lines in `logs/audit/security.log`, by the daemon and by jobs of its own."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from json import dumps

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import Sink
from symbiont_datad.fsops.write import append_line
from symbiont_datad.layout import Category, Layout


def audit_log(layout: Callable[[], Layout]) -> Sink:
    """What takes a security event and appends it; what can't be written is in the daemon's log anyhow."""

    def audit(entry: Mapping[str, object]) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = dumps({"timestamp": at, **entry}, default=str).encode() + b"\n"
        with suppress(OSError, UnsafePath):
            found = layout()
            with found.tree.directory(found.path_of(Category.LOGS, "audit")) as fd:
                append_line(fd, "security.log", line)

    return audit
