"""Compressing old archives of contexts as the runtime itself compresses them: gzip, under the same name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats.context import Document, Form, Verdict, encoded
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.rewrite import rewrite
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.state_files import StateFile
from symbiont_datad.quantities import format_duration
from symbiont_datad.report import Action, Finding, Severity

FINDINGS = 20
"""Archives that could not be compressed, each told of."""

NEVER = float("inf")


@dataclass(slots=True)
class Packed:
    """What came of it. `due`: when the next archive is old enough, in seconds since the epoch."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    due: float = NEVER
    interrupted: bool = False


def compress_archives(
    context: JobContext, judges: Judges, archives: Sequence[StateFile], verdicts: Mapping[str, Verdict]
) -> Packed:
    """Compress the archives that are old enough, whole, and not compressed yet, if the settings ask for it.

    Each is replaced in one step by a file with the same content, name, mode, owner and times.
    """
    age = context.settings.state.compress_archives_s
    packed = Packed()
    if age is None:
        return packed
    book = Book(context)
    for file in archives:
        verdict = verdicts.get(file.path)
        if verdict is None or not verdict.good or verdict.form is not Form.JSON:
            continue
        due = file.entry.mtime_ns / 1e9 + age
        if due > context.now:
            packed.due = min(packed.due, due)
        elif context.stopping():
            packed.interrupted = True
            break
        elif not judges.is_open(file.entry):
            _compress(context, judges, file, book, packed)
    return packed


def _compress(context: JobContext, judges: Judges, file: StateFile, book: Book, packed: Packed) -> None:
    text = judges.content(file.entry)
    if text is None:
        return
    data = encoded(text, gzip=True)
    if len(data) >= len(text):
        return
    age = format_duration(context.now - file.entry.mtime_ns / 1e9)
    saved = len(text) - len(data)
    action = Action("archive_compressed", file.path, "state.compress_archives", f"it is {age} old", saved)
    if context.dry_run:
        packed.actions.append(action)
        return
    rows = book.plan([action])
    try:
        done, why = rewrite(context.layout.tree, file.entry, data), "it has changed meanwhile"
    except (OSError, UnsafePath) as error:
        done, why = None, getattr(error, "strerror", None) or str(error)
        if len(packed.findings) < FINDINGS:
            remedy = "let the daemon's user write to its directory"
            packed.findings.append(Finding("not_compressed", file.path, Severity.WARNING, why, remedy))
    if done is None:
        book.confirm(rows, [], [Failure(file.path, why, True)])
        return
    book.confirm(rows, [action], [])
    packed.actions.append(action)
    judges.note(done, judges.judge(data, file.name, Document.ARCHIVE, gzip=None))
