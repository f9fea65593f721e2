"""Rows of the ledger as people read them: how much one matters, and its sentence. Pure."""

from symbiont_datad.events import EVENTS
from symbiont_datad.ledger_events import FAILED
from symbiont_datad.ledger_schema import Row
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Severity

LEVELS = (Severity.INFO, Severity.WARNING, Severity.ERROR)
"""The severities of rows, the least first."""

_SAID = {
    "file_removed": "removed",
    "quarantine_expired": "removed for good",
    "removal_undone": "brought back",
    "metadata_written": "wrote",
    "context_converted": "wrote anew",
    "rotation_undone": "took back the rotation of",
    "rotation_recovered": "put right after a kill:",
    "log_stored": "compressed",
    "archive_compressed": "compressed",
}
"""What is said of a kind of action; of others their words, the last one first: `recreated directory`."""


def severity_of(row: Row) -> Severity:
    """How much it matters: what failed is an error, all else as the event of its kind, but no less than INFO."""
    if row.state == "failed":
        return Severity.ERROR
    event = EVENTS.get(row.kind)
    return event.severity if event is not None and event.severity in LEVELS else Severity.INFO


def kinds_of(least: Severity) -> tuple[str, ...]:
    """The kinds that matter at least so much; with INFO all do, and none is named."""
    wanted = LEVELS[LEVELS.index(least) :] if least is not Severity.INFO else ()
    return tuple(name for name, event in EVENTS.items() if event.severity in wanted)


def sentence(row: Row) -> str:
    """What was done to what, and why: `removed prompts/cache/ab12.json (4.2 KiB): not used for 42d, over 30d`."""
    if row.kind == FAILED:
        return f"{row.job} failed: {row.reason or 'no reason is known'}"
    noun, _, verb = row.kind.rpartition("_")
    said = _SAID.get(row.kind) or f"{verb} {noun.replace('_', ' ')}".rstrip()
    place = row.path or ("" if row.kind.startswith("repository") else "the root")
    size = f" ({format_size(row.bytes)})" if row.bytes else ""
    state = "" if row.state == "done" else f" [{row.state}]"
    return f"{said} {place}".rstrip() + f"{size}{state}: {row.reason}"
