"""The autosave: a snapshot of `state/` and the prompt templates, when something in them has changed."""

from symbiont_datad.fsops.walk import walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.saving import Fingerprint, Part, Saved, save_when_changed
from symbiont_datad.jobs.templates import save_templates
from symbiont_datad.layout import Category


def autosave(context: JobContext, seen: Fingerprint) -> Saved:
    """Make the snapshot if it is needed, and forget those that `[autosave]` does not keep. Raises nothing of its own.

    `seen` has everything below `state/`; the templates are added here. What a watch has missed of those becomes a
    version here too.
    """
    if context.dry_run:
        return Saved()
    templates = context.layout.path_of(Category.PROMPTS, "templates")
    alone = Fingerprint(context.now)
    entries = list(walk(context.layout.tree, templates, on_error=lambda _path, _error: None))
    seen.extend(entries)
    alone.extend(entries)
    versions = save_templates(context, alone)
    saved = save_when_changed(context, Part("autosave", (context.layout.path_of(Category.STATE), templates)), seen)
    return Saved([*versions.actions, *saved.actions], saved.findings, versions.interrupted or saved.interrupted)
