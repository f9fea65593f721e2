"""What a sweep tells of: damaged files, contexts in the other mode, temporary files, and what to do about each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from symbiont_datad.formats.context import Damage, Document, Verdict
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.heal import Healed
from symbiont_datad.jobs.healing import mode_in_force
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.state_files import StateFile, StateFiles, is_stranger
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.retention.backups import newest_first

ALIKE = 20
"""Files of another version's schema, each told of; those above are counted."""


def damaged_files(
    context: JobContext,
    judges: Judges,
    files: StateFiles,
    left: Iterable[StateFile],
    verdicts: Mapping[str, Verdict],
    healed: Healed,
) -> Iterator[Finding]:
    """One for each file with which something is wrong (`left`), but for many that another version has written."""
    doubtful: list[StateFile] = []
    for file in left:
        verdict = verdicts[file.path]
        assert verdict.kind is not None
        if verdict.kind is Damage.OTHER_SCHEMA:
            doubtful.append(file)
            continue
        stranger = is_stranger(file, verdict)
        advice = healed.advice.get(file.path) or (_STRANGER if stranger else _remedy(file, verdict, judges, files))
        severe = file.document is not Document.ARCHIVE and verdict.damaged and not stranger
        severity = Severity.ERROR if severe else Severity.WARNING
        yield Finding(f"{file.what}_{verdict.kind.value}", file.path, severity, verdict.detail, advice)
    yield from _doubtful(context, doubtful, verdicts)


_STRANGER = "its name is no UUID, so the runtime passes over it; keep it elsewhere"


def _remedy(file: StateFile, verdict: Verdict, judges: Judges, files: StateFiles) -> str:
    """What to do about a file that is not healed."""
    if file.document is Document.ANY:
        return "restore it, or move it away"
    if verdict.kind is Damage.TOO_LARGE:
        return "look whether the runtime still loads it"
    if file.document is Document.ARCHIVE:
        return f"`versions {printable(file.path)}` shows whether a snapshot has a whole one"
    if verdict.kind is Damage.OTHER_EXTENSION:
        return "the runtime won't start with it; give it the name that its content has, or set state.compression"
    backups = files.backups.get(file.name.agent, [])
    good = next(filter(judges.parses, newest_first(backups)), None)
    if good is not None:
        at = datetime.fromtimestamp(good.entry.mtime_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")
        return f"the runtime won't start with it; a good backup of {at} is {printable(good.entry.path)}"
    have = f"none of its {len(backups)} backups is whole" if backups else "it has no backup"
    return f"the runtime won't start with it, and {have}; move it away to start without this agent's context"


def _doubtful(context: JobContext, files: Sequence[StateFile], verdicts: Mapping[str, Verdict]) -> Iterator[Finding]:
    remedy = "nothing is done about it; if the runtime does not start, this is why"
    for file in files[:ALIKE]:
        detail = f"version 1.19.0 of the runtime does not load it: {verdicts[file.path].detail}"
        yield Finding(f"{file.what}_other_schema", file.path, Severity.WARNING, detail, remedy)
    if len(files) > ALIKE:
        detail = f"{len(files) - ALIKE} more files are as version 1.19.0 of the runtime does not load them"
        yield Finding("context_other_schema", context.layout.agents, Severity.WARNING, detail, remedy)


def other_modes(context: JobContext, files: StateFiles, healed: Healed) -> Iterator[Finding]:
    """Contexts in the mode that the runtime doesn't use: it lists them and never loads them."""
    if context.settings.state.heal == "off":
        return
    contexts = [file for file in files.contexts if not file.sealed]
    count = Counter(file.gzip for file in contexts)
    if len(count) < 2 and context.settings.state.compression == "detect":
        return
    usual = mode_in_force(context.settings.state.compression, contexts, files.backups)
    if usual is None:
        detail = f"{count[True]} contexts are named .json.gz and {count[False]} .json; the runtime loads one kind only"
        remedy = "set state.compression to on or off, as the runtime has it, and the next sweep puts them right"
        yield Finding("context_modes_mixed", context.layout.agents, Severity.WARNING, detail, remedy)
        return
    extension, mode = (".json.gz", "on") if usual else (".json", "off")
    for file in contexts:
        if file.gzip is not usual and file.path not in healed.settled:
            yield Finding(
                "context_other_mode",
                file.path,
                Severity.WARNING,
                f"contexts are named {extension}; with compression {mode} the runtime does not load this one",
                healed.advice.get(file.path)
                or "write it anew in the mode that the runtime uses, or remove it if the agent has another",
            )


def leftovers(files: StateFiles, judges: Judges) -> Iterator[Finding]:
    """Temporary files that nobody writes to any more."""
    for entry in files.leftovers:
        if judges.settled(entry):
            detail = f"a temporary file of {entry.size} bytes, left when a write was cut off"
            yield Finding("leftover", entry.path, Severity.INFO, detail, "it can be removed")


def unread(files: StateFiles) -> Iterator[Finding]:
    """What could not be looked at."""
    for path, why in files.unread.items():
        yield Finding("unread", path, Severity.WARNING, why, "let the daemon's user read it")
