"""What the daemon says: the names of its events, and where they go.

An event's name is a fact in the past tense. `EVENTS` lists every one with its severity and what it means;
`docs/events.md` is made from it. Nothing else may be emitted.

Where the lines go: coloured to a terminal; as native fields to the journal when stderr is connected to it
(`$JOURNAL_STREAM`, systemd.exec(5)); else as one JSON object a line to stdout.
"""

import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOBase
from typing import IO, Any, TextIO, cast

from symbiont_datad.report import Severity


@dataclass(frozen=True, slots=True)
class Event:
    """What is known of an event before it happens. `security` ones also go to `logs/audit/security.log`."""

    severity: Severity
    meaning: str
    security: bool = False


_D, _I, _W, _E = Severity.DEBUG, Severity.INFO, Severity.WARNING, Severity.ERROR

EVENTS: Mapping[str, Event] = {
    "daemon_started": Event(_I, "The tree is as declared, the guard watches, the schedule runs."),
    "daemon_stopped": Event(_I, "A clean end."),
    "settings_reloaded": Event(_I, "SIGHUP: the new settings are in force."),
    "settings_refused": Event(_E, "SIGHUP: the new settings are wrong; the old ones stay in force."),
    "http_started": Event(_I, "The server of probes answers at its address."),
    "http_failed": Event(
        _E, "The server of probes can't listen at its address; it is tried again, and the tree is kept."
    ),
    "metrics_failed": Event(_E, "The metrics could not be gathered, or their file not be written; it is tried again."),
    "tree_created": Event(_I, "The root directory was made; it was not there."),
    "tree_held": Event(_E, "The root's file system is not mounted (or its path can't be trusted); nothing is touched."),
    "tree_released": Event(_I, "The tree is kept again."),
    "directory_created": Event(_I, "A declared directory was made at start."),
    "directory_recreated": Event(_W, "A declared directory had gone and was made again."),
    "permissions_restored": Event(_W, "A mode had changed and was set back.", security=True),
    "owner_restored": Event(_W, "An owner or group had changed and was set back.", security=True),
    "obstruction_quarantined": Event(
        _W, "Something that is no directory stood where a directory belongs; it was moved aside.", security=True
    ),
    "repair_failed": Event(_E, "A repair could not be made; it will be tried again.", security=True),
    "repair_refused": Event(
        _E, "A repair would have touched something that is not ours (a hard link, another mount).", security=True
    ),
    "repair_backed_off": Event(_W, "Something keeps undoing a repair; it is now made less often."),
    "repair_resumed": Event(_I, "Nothing undoes the repair any more."),
    "watch_failed": Event(_E, "A directory can't be watched; the periodic reconcile still repairs it."),
    "watch_overflowed": Event(_W, "More happened than the kernel's queue holds; the whole layout was compared."),
    "watcher_restarted": Event(_W, "A thread of the watcher had died and was replaced."),
    "job_started": Event(_D, "A job began."),
    "job_finished": Event(_I, "A job ended as it should."),
    "job_left_something": Event(_W, "A job ended, and something is left to look at."),
    "job_failed": Event(_E, "A job ended before its work was done."),
    "job_skipped": Event(_I, "A job did not run, because another run of it was under way."),
    "job_caught_up": Event(_I, "A run missed during sleep, downtime or a clock change is made up for."),
    "clock_jumped": Event(_W, "The wall clock moved against the monotonic clock; the schedule was set anew."),
    "context_damaged": Event(_E, "A context file can't be read; the runtime would not start with it."),
    "context_recovered": Event(_I, "A context file that was damaged reads again."),
    "context_restored": Event(
        _W, "A damaged context's last good version was put back; the broken file is in quarantine."
    ),
    "context_converted": Event(_W, "A context in a mode that the runtime does not load was written anew in its mode."),
    "context_quarantined": Event(_W, "A context that the runtime can't use was moved to quarantine, whole."),
    "backup_rotated": Event(_D, "One of the runtime's own backups was removed; newer ones remain."),
    "file_removed": Event(_D, "Retention removed a file or a directory, or moved it to the quarantine."),
    "cache_trimmed": Event(_I, "Retention removed cache files; the counts say how many."),
    "retention_applied": Event(_I, "Retention removed files or whole directories; the counts say how many, by rule."),
    "history_packed": Event(_I, "Days of the prompt history were packed into one compressed file each."),
    "removal_undone": Event(_I, "What a run of retention had removed was brought back from the quarantine."),
    "quarantine_expired": Event(_I, "Things that had been in the quarantine long enough were removed for good."),
    "pressure_began": Event(_W, "Less is free on a disk than the high water mark says; room is being made."),
    "room_made": Event(_I, "Files were removed because the disk was nearly full; the counts say how many."),
    "pressure_ended": Event(_I, "More is free again than the high water mark says."),
    "pressure_unrelieved": Event(_E, "A disk is nearly full and nothing more may go; the reason says what would help."),
    "log_rotated": Event(_D, "A log was rotated; the reason says why, and which way."),
    "logs_rotated": Event(_I, "Logs were rotated; the counts say how many, and how much of them."),
    "log_left_alone": Event(_W, "A log is due and can't be rotated; told when it is new, the findings say what to do."),
    "log_cut_unsafely": Event(_W, "A log is copied and cut, as the settings allow: lines written meanwhile are lost."),
    "log_archives_trimmed": Event(_I, "Archives of logs were removed, as the settings say."),
    "rotation_recovered": Event(_W, "A rotation that was killed was finished or taken back."),
    "repository_created": Event(_I, "There was no snapshot repository yet; one was made."),
    "repository_verified": Event(_I, "The structure of the repository, and a part of its data, is as it should be."),
    "repository_damaged": Event(_E, "The repository is damaged; the findings name the files and what to do."),
    "repository_pruned": Event(_I, "Data that no snapshot needs was removed from the repository."),
    "prune_skipped": Event(_I, "Somebody else is at work on the repository; data that nobody needs goes later."),
    "snapshot_created": Event(_I, "A snapshot was saved."),
    "snapshot_forgotten": Event(_I, "A snapshot that the policy does not keep was removed."),
    "snapshot_skipped": Event(_W, "A sweep could not save a snapshot; told once, and each sweep tries again."),
    "backup_refused": Event(_E, "The repository's file system has too little free space; nothing was backed up."),
    "job_progressed": Event(_D, "How far a job is."),
    "restore_drill_passed": Event(_I, "Files picked at random were restored from the newest snapshot, and were right."),
    "restore_drill_failed": Event(_E, "A file restored from the newest snapshot is not what it was; see the findings."),
    "collection_exposed": Event(
        _W, "A vector collection shares files with another one, or others can write to it.", security=True
    ),
    "collection_optimized": Event(_I, "A vector collection was optimised; `freed` says by how many bytes."),
    "collection_skipped": Event(_I, "A vector collection could not be optimised now; the reason says why."),
    "legacy_data_found": Event(_W, "Data of before the tree lies in an old place; `symbiont-datad migrate` brings it."),
    "legacy_migrated": Event(_I, "Legacy data was brought over; the counts say how much."),
    "legacy_removed": Event(_I, "A migration was finished; what was in the old place is in a snapshot or quarantine."),
    "migration_undone": Event(_I, "A migration was taken back."),
    "legacy_link_restored": Event(_W, "The link in an old place had gone and was made again."),
    "legacy_link_obstructed": Event(_W, "Something else is in an old place where a link belongs; it is left alone."),
    "mirror_brought": Event(_D, "What was written to an old place was brought over; the counts say how much."),
    "mirror_conflict": Event(_W, "A file was changed on both sides of a mirror; the newer one won, both are kept."),
    "mirror_left": Event(_W, "A file in an old place can't be brought over."),
    "mirror_failed": Event(_E, "An old place can't be kept in step; told once, and tried again."),
    "mirror_resumed": Event(_I, "The old place is kept in step again."),
    "ledger_replaced": Event(_E, "The ledger could not be read; it was moved aside and a new one begun."),
    "ledger_failed": Event(_E, "The ledger could not be written (a full disk?); work goes on."),
}

ADVICE: Mapping[str, str] = {
    "settings_refused": "`symbiont-datad config check` names every problem; reload again when there is none left.",
    "http_failed": "Free the address, or set another one as http.listen.",
    "metrics_failed": "Let the daemon's user write to the directory of metrics.textfile.",
    "tree_held": "Mount the file system, or put the path right: the daemon goes on by itself within ten seconds.",
    "directory_recreated": "What was in it is in the snapshots: `symbiont-datad snapshots`, `symbiont-datad restore`. "
    "Find out who removes it.",
    "permissions_restored": "If the new mode was meant, set it in [permissions].",
    "owner_restored": "If the new owner was meant, set `owner` or `group`.",
    "obstruction_quarantined": "It is in .quarantine/ in the root, with a record.json that says what it was and where.",
    "repair_failed": "`symbiont-datad check` shows what is left; most often rights are missing, or the disk is full.",
    "repair_refused": "Look at what it is, and remove it by hand if it is not wanted.",
    "repair_backed_off": "Find the program that changes it: two that keep the same directory differently never end.",
    "watch_failed": "Raise fs.inotify.max_user_instances or fs.inotify.max_user_watches with sysctl, if that is named.",
    "job_left_something": "`symbiont-datad status` lists what, and what to do about it.",
    "job_failed": "The reason says what stood in its way. It runs again by its timetable; a backup after ten minutes.",
    "context_restored": "Restart the runtime: it reads contexts when it starts. The damaged file is in .quarantine/.",
    "context_converted": "Restart the runtime: it reads contexts when it starts. What it was is in .quarantine/.",
    "context_quarantined": "The agent starts without it; `symbiont-datad versions` shows older ones.",
    "pressure_began": "`symbiont-datad status` tells what fills the disk; [limits] sets the marks.",
    "pressure_unrelieved": "Make room by hand as the reason says, or let [retention] rules remove more.",
    "log_left_alone": "`symbiont-datad rotate --dry-run` says why, and what to do about it.",
    "log_cut_unsafely": "Have the program append (`>>`), or unset logs.allow_copytruncate.",
    "rotation_recovered": "Nothing is to be done: archives and live log are whole.",
    "collection_exposed": "`symbiont-datad check` names what is shared or open, and what to do.",
    "collection_skipped": "The next run tries again; `symbiont-datad vectors optimize NAME` does it now.",
    "context_damaged": "`symbiont-datad check` names a good backup, `symbiont-datad versions` those in snapshots.",
    "repository_damaged": "`symbiont-datad status` names the files. Do not prune before it is mended.",
    "snapshot_skipped": "The reason says what stood in its way; nothing is lost while the next sweep succeeds.",
    "backup_refused": "Make room there, or lower backup.min_free.",
    "restore_drill_failed": "Trust no older backup blindly: `symbiont-datad verify --read-data` reads all of it.",
    "ledger_replaced": "The old one is kept beside it under the name in the entry; nothing else is to be done.",
    "ledger_failed": "Make room where the daemon keeps its own files (`daemon_dir`).",
}
"""What a person can do about an event; others need nothing."""

_LEVELS = {_D: logging.DEBUG, _I: logging.INFO, _W: logging.WARNING, _E: logging.ERROR}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_JOURNAL_SOCKET = "/run/systemd/journal/socket"

Sink = Callable[[Mapping[str, Any]], None]
_security_sink: Sink | None = None
_journal: "_JournalFactory | None" = None
_silent = False


def emit(name: str, /, **fields: Any) -> None:
    """Say that the event `name` happened. Fields are plain values; `path`, `job` and `reason` are the usual ones.

    Raises KeyError for an event that `EVENTS` doesn't list. Never raises for a log that can't be written.
    """
    event = EVENTS[name]
    if not _silent:
        import structlog  # 20 ms

        structlog.get_logger().log(_LEVELS[event.severity], name, **fields)
    if event.security and _security_sink is not None:
        _security_sink({"event": name, **fields})


def send_security_events_to(sink: Sink | None) -> None:
    """Hand every security event to `sink` as well (the audit log); None stops that."""
    global _security_sink
    _security_sink = sink


def silence() -> None:
    """Say nothing until `configure` is called: for a command that tells of all that happens itself."""
    global _silent
    _silent = True


def message_id(name: str) -> str:
    """The 128 bits by which the journal's message catalogue knows an event (systemd.journal-fields(7), `MESSAGE_ID=`).

    Made from its name, so an event keeps it for ever.
    """
    from hashlib import sha256

    return sha256(f"symbiont-datad event {name}".encode()).hexdigest()[:32]


def configure(form: str = "auto", level: str = "info", stream: IO[str] | None = None) -> None:
    """Set structlog up: `form` is `auto`, `console`, `json` or `journal`, `level` the least severe that is said."""
    global _journal, _silent
    _silent = False
    if _journal is not None:
        _journal.close()
        _journal = None
    blocked = _without_rich()
    import structlog

    for name in blocked:
        del sys.modules[name]
    chosen = form if form != "auto" else _detect(stream or sys.stderr)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    factory: Any
    if chosen == "journal":
        factory = _journal = _JournalFactory(_JOURNAL_SOCKET)
        processors.append(_journal_fields)
    elif chosen == "json":
        factory = structlog.WriteLoggerFactory(cast(TextIO, _Forgiving(stream or sys.stdout)))
        processors.append(structlog.processors.JSONRenderer(default=str))
    else:
        factory = structlog.WriteLoggerFactory(cast(TextIO, _Forgiving(stream or sys.stderr)))
        colors = (stream or sys.stderr).isatty() and "NO_COLOR" not in os.environ
        processors.append(structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def _without_rich() -> list[str]:
    """Keep structlog from importing rich for its tracebacks: 4 MiB of a daemon that never draws one."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        return []
    sys.modules["rich"] = None  # type: ignore[assignment]
    return ["rich"]


def _detect(stream: IO[str]) -> str:
    """The journal if stderr is the very stream that systemd connected to it, a terminal, or else JSON."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(sys.stderr.fileno())
        if named == f"{found.st_dev}:{found.st_ino}":
            return "journal"
    except (OSError, ValueError):
        pass
    return "console" if stream.isatty() else "json"


class _Forgiving(TextIOBase):
    """A stream whose reader may go away: a log that can't be written must not end the daemon."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


def _journal_fields(_logger: Any, _method: str, entry: dict[str, Any]) -> tuple[tuple[bytes], dict[str, Any]]:
    return (encode_journal(entry),), {}


def encode_journal(entry: Mapping[str, Any]) -> bytes:
    """One entry in the journal's native protocol (systemd, "Native Journal Protocol").

    A field is `KEY=value` and a newline; a value with newlines in it goes after the key, a newline and its length as a
    64-bit little-endian number. `MESSAGE` is a sentence, each of the entry's own fields becomes `SYMBIONT_…`.
    """
    rest = {key: value for key, value in entry.items() if key not in ("event", "level", "timestamp")}
    details = " ".join(f"{key}={value}" for key, value in rest.items())
    fields: dict[str, object] = {
        "MESSAGE": f"{entry['event']} {details}".rstrip(),
        "PRIORITY": _PRIORITIES.get(str(entry.get("level")), 6),
        "SYSLOG_IDENTIFIER": "symbiont-datad",
        "SYMBIONT_EVENT": entry["event"],
        "MESSAGE_ID": message_id(str(entry["event"])),
    }
    for key, value in rest.items():
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper())
        text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else value
        fields[f"SYMBIONT_{name}"] = text
    out = bytearray()
    for key, value in fields.items():
        text = str(value).encode("utf-8", "backslashreplace")
        if b"\n" in text:
            out += key.encode() + b"\n" + struct.pack("<Q", len(text)) + text + b"\n"
        else:
            out += key.encode() + b"=" + text + b"\n"
    return bytes(out)


class _JournalFactory:
    """Loggers that send a datagram an entry to journald; to stderr when the journal can't be reached."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __call__(self, *_args: object) -> "_JournalFactory":
        return self

    def msg(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, self._address)
        except OSError:
            text = datagram.split(b"\n", 1)[0].removeprefix(b"MESSAGE=")
            os.write(2, text[:2000] + b"\n")

    def close(self) -> None:
        self._socket.close()

    debug = info = warning = error = critical = msg
