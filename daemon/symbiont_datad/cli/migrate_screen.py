"""What `migrate` prints: what was found, plans, and what came of them."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from symbiont_datad.cli import show
from symbiont_datad.quantities import format_duration, format_size
from symbiont_datad.report import Action, Finding, JobReport, printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.finish import Finished
    from symbiont_datad.migrate.detect import Detected
    from symbiont_datad.migrate.journal import Journal
    from symbiont_datad.migrate.migration import Planned
    from symbiont_datad.migrate.undo import Undone

_SHOWN = 20
_KINDS = {
    "context_migrated": "contexts",
    "context_converted": "contexts, stored in the mode in force",
    "context_set_aside": "contexts as they were, to quarantine",
    "backup_migrated": "backups",
    "archive_migrated": "archives",
    "file_migrated": "other files",
    "log_migrated": "logs",
    "vectors_migrated": "files of vectors",
    "conflict_kept": "older ones, kept beside the tree's own",
    "damaged_set_aside": "damaged files, to quarantine",
    "surplus_set_aside": "backups over backup_count, to quarantine",
    "same": "files that the tree has already",
}


def show_found(found: "Detected") -> None:
    """The settings that name old places, and the places, with how sure it is."""
    for mention in found.mentions:
        where = f"in {printable(mention.file)}" if mention.file else "in the environment"
        show.line(f"setting    {mention.name} = {printable(mention.value)}  {where}")
    for path, why in found.unread:
        show.note(f"symbiont-datad: {printable(path)}: can't be read: {why}")
    for one in found.candidates:
        what = f"{one.certainty.value}: {one.source.kind.value}"
        problem = f"; {one.problem}, so it is left alone" if one.problem else ""
        only = f" ({', '.join(one.source.names)})" if one.source.names else ""
        unsure = "; --from brings it over" if one.certainty == "unsure" and not one.problem else ""
        show.line(f"place      {printable(one.source.path)}{only}  {what} ({printable(one.why)}){problem}{unsure}")


def summarize(planned: "Sequence[Planned]") -> None:
    """Plans in a few lines."""
    from symbiont_datad.migrate.plan import counted

    for one in planned:
        copies = one.plan.copies
        show.line(
            f"\n{printable(one.source.path)}: {len(copies):,} files to bring, {format_size(one.plan.bytes)}"
            + (f"; {one.unchanged:,} came over before" if one.unchanged else "")
        )
        for kind, files, size in counted(one.plan.steps):
            if kind in _KINDS:
                show.line(f"  {files:>9,}  {_KINDS[kind]}" + (f", {format_size(size)}" if size else ""))
        for move in one.plan.moves:
            show.line(f"  {printable(move.path)} becomes {printable(move.to)}: {move.reason}")
        _show_findings(one.plan.findings)


def _show_findings(findings: Sequence[Finding]) -> None:
    for one in findings[:_SHOWN]:
        show.line(f"  {show.finding_sentence(one)}")
    if len(findings) > _SHOWN:
        show.line(f"  … and {len(findings) - _SHOWN:,} more; --dry-run lists all")


def tell_plan(planned: "Sequence[Planned]", done: JobReport) -> None:
    """A plan, file by file, and what it comes to."""
    for one in planned:
        for move in one.plan.moves:
            show.line(f"would rename {printable(move.path)} to {printable(move.to)}: {move.reason}")
        for step in one.plan.steps:
            path = printable(os.path.join(one.source.path, step.file.path))
            where = "quarantine" if step.to.aside else printable(step.to.path)
            what = f"{step.deed.value}: {path} → {where}" if where else f"{step.deed.value}: {path}"
            show.line(f"would {what}: {step.reason}")
        for finding in one.plan.findings:
            show.line(show.finding_sentence(finding))
    counts = done.counts
    show.line(
        f"would bring {counts['files']:,} files, {format_size(counts['bytes'])}; {counts['same']:,} are there already, "
        f"{counts['left']:,} stay where they are"
    )


def document(root: str, found: "Detected | None", done: JobReport, *, dry_run: bool) -> show.Json:
    """What was found and done, with the names of the documented JSON; a plan has the same shape."""
    return {
        "root": root,
        "job": "migrate",
        "dry_run": dry_run,
        "outcome": done.outcome,
        "settings": [
            {"name": one.name, "value": printable(one.value), "file": printable(one.file) or None, "kind": one.kind}
            for one in (found.mentions if found is not None else ())
        ],
        "places": [
            {
                "path": printable(one.source.path),
                "kind": one.source.kind,
                "certainty": one.certainty,
                "why": printable(one.why),
                "problem": one.problem or None,
            }
            for one in (found.candidates if found is not None else ())
        ],
        "counts": dict(done.counts),
        "actions_total": done.actions_total,
        "bytes_total": done.bytes_total,
        "actions": [show.action(one) for one in done.actions],
        "findings": [show.finding(one) for one in done.findings],
    }


def tell(done: JobReport, root: str, took: float) -> None:
    """What was brought over; `took` in seconds."""
    for finding in done.findings[:_SHOWN]:
        show.line(show.finding_sentence(finding))
    if len(done.findings) > _SHOWN:
        show.line(f"… and {len(done.findings) - _SHOWN:,} more; `symbiont-datad status` and --json tell of them")
    counts = done.counts
    if not counts["files"] and not counts["same"]:
        also = f"; {counts['unchanged']:,} files came over before" if counts["unchanged"] else ""
        show.line(f"nothing to do{also}")
        return
    parts = [f"brought {counts['files']:,} files, {format_size(counts['bytes'])}, to {printable(root)}"]
    parts += [f"{counts['same']:,} were there already"] if counts["same"] else []
    parts += [f"{counts['set_aside']:,} of them are in quarantine"] if counts["set_aside"] else []
    parts += [f"{counts['left']:,} stay where they are"] if counts["left"] else []
    show.line(f"{'; '.join(parts)} ({format_duration(took)})")
    show.line("The old place is as it was. `config migrate` rewrites settings, --finish ends it, --undo takes it back.")


def tell_undo_plan(journal: "Journal", as_json: bool) -> None:
    """What would be taken back."""
    made, configs, rows = journal.made(), journal.configs(), journal.sources()
    if as_json:
        show.last_line(
            {
                "dry_run": True,
                "files": len(made),
                "settings": [printable(one.path) for one in configs],
                "places": [printable(row.source.path) for row in rows],
            }
        )
        return
    restored = sum(one.original is not None for one in made)
    show.line(f"would take back {len(made) - restored:,} files, and restore {restored:,} that were overwritten")
    for row in rows:
        if row.aside is not None:
            show.line(f"would put {printable(row.aside)} back as {printable(row.source.path)}")
    for config in configs:
        show.line(f"would restore {printable(config.path)}")
    show.line("What was written since is kept, and listed.")


def tell_undone(undone: "Undone", done: Sequence[Action], as_json: bool) -> None:
    """What was taken back, and what was kept."""
    if as_json:
        show.last_line(
            {
                "dry_run": False,
                "removed": undone.removed,
                "restored": undone.restored,
                "kept": [printable(path) for path in undone.kept],
                "actions": [show.action(one) for one in done],
                "findings": [show.finding(one) for one in undone.findings],
            }
        )
        return
    for path in undone.kept:
        show.line(f"written since, and kept: {printable(path)}")
    for finding in undone.findings:
        show.line(show.finding_sentence(finding))
    show.line(f"taken back: {undone.removed:,} files removed, {undone.restored:,} restored, {len(undone.kept):,} kept")


def tell_finished(finished: "Finished", *, dry_run: bool) -> None:
    """What is gone from the old places, or would be."""
    for path, reason in finished.left[:_SHOWN]:
        show.line(f"stays: {printable(path)}: {reason}")
    if len(finished.left) > _SHOWN:
        show.line(f"… and {len(finished.left) - _SHOWN:,} more stay")
    if dry_run:
        for one in finished.actions:
            show.line(f"would do {show.sentence(one)}")
        return
    where = f"snapshot {finished.snapshot[:8]} holds them" if finished.snapshot else "there was nothing to remove"
    where = f"now in {', '.join(finished.quarantined)}" if finished.quarantined else where
    show.line(
        f"finished: {finished.removed:,} files, {format_size(finished.bytes)}, are gone from the old place; {where}"
    )
