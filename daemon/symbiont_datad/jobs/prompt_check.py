"""What `check` looks for in prompts: templates that can't be used or have no version, and broken cached results."""

import heapq
import json
import os
import stat
from collections.abc import Iterator

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.saving import Fingerprint, is_saved
from symbiont_datad.layout import Category
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.caching import CacheTally

_TEMPLATE_LARGEST = 4 << 20
_CACHED = 20_000
"""So many cached results are read, the newest; of the others only the size is known."""
_CACHED_LARGEST = 1 << 20
_TOLD = 20
_LATE_S = 600.0
"""A template that was written so long ago has been seen by a sweep."""
_GZIP = b"\x1f\x8b"


def prompt_findings(context: JobContext) -> list[Finding]:
    """What is not as it should be with the templates and the cache. Changes nothing."""
    return [*_templates(context), *_cache(context)]


def _templates(context: JobContext) -> Iterator[Finding]:
    place = context.layout.path_of(Category.PROMPTS, "templates")
    seen, newest = Fingerprint(context.now), 0.0
    entries = list(walk(context.layout.tree, place, on_error=lambda _path, _error: None))
    seen.extend(entries)
    for entry in entries:
        newest = max(newest, entry.mtime_ns / 1e9)
        why = _unusable(context, entry)
        if why:
            severity = Severity.WARNING if why != _EMPTY else Severity.INFO
            remedy = "write it anew; `templates log` shows its versions, and `restore` gets one back"
            yield Finding("template_unusable", entry.path, severity, why, remedy)
    if newest and context.now - newest > _LATE_S and not is_saved(context, "templates", seen):
        detail = "what they are now is in no snapshot of the templates"
        remedy = "`symbiont-datad sweep` makes one; `status` tells whether the daemon runs"
        yield Finding("templates_unsaved", place, Severity.WARNING, detail, remedy)


_EMPTY = "it is empty"


def _unusable(context: JobContext, entry: Entry) -> str:
    if stat.S_ISLNK(entry.mode):
        return "it is a symbolic link: versions hold the link, and not what it leads to"
    if not entry.is_file:
        return "it is no file"
    if entry.nlink > 1:
        return f"it has {entry.nlink} names: whoever writes to another one changes it unseen"
    if entry.size == 0:
        return _EMPTY
    if entry.size > _TEMPLATE_LARGEST:
        return f"it is too large for a template ({format_size(entry.size)})"
    data = _read(context, entry.path, entry.size)
    if data is None:
        return "it can't be read"
    if b"\0" in data:
        return "it has NUL bytes, as a crash or a full disk leaves them"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is no UTF-8 from byte {error.start} on"
    return ""


def _cache(context: JobContext) -> Iterator[Finding]:
    layout = context.layout
    place = layout.path_of(Category.PROMPTS, "cache")
    rule = next((rule for rule in layout.rules if rule.name == "cache"), None)
    tally = CacheTally(rule, context.now)
    settled_ns = int((context.now - context.settings.settle_s) * 1e9)
    broken: list[tuple[str, str]] = []
    files: list[tuple[int, str, int]] = []
    for entry in walk(layout.tree, place, on_error=lambda _path, _error: None):
        if not entry.is_file:
            continue
        tally.add(entry)
        if entry.mtime_ns > settled_ns:
            continue
        if entry.size == 0:
            broken.append((entry.path, "it is empty"))
        elif entry.path.endswith(".json") and entry.size <= _CACHED_LARGEST:
            files.append((entry.mtime_ns, entry.path, entry.size))
    for _, path, size in heapq.nlargest(_CACHED, files):
        why = _no_json(_read(context, path, size))
        if why:
            broken.append((path, why))
    for number, (path, why) in enumerate(sorted(broken)[:_TOLD]):
        more = len(broken) - _TOLD if number == _TOLD - 1 else 0
        detail = f"{why} (and {more} more of them)" if more > 0 else why
        remedy = "remove it: a cached result can be made again"
        yield Finding("cache_damaged", path, Severity.WARNING, detail, remedy)
    due = sum(group.due_bytes for group in tally.use())
    if rule is not None and rule.max_bytes is not None and due > rule.max_bytes:
        detail = f"{format_size(due)} are above its limits, more than these allow in all"
        remedy = "`symbiont-datad clean` trims it; `status` tells whether the daemon runs"
        yield Finding("cache_untrimmed", place, Severity.WARNING, detail, remedy)


def _no_json(data: bytes | None) -> str:
    if data is None or data.startswith(_GZIP):  # gone meanwhile; or of another kind
        return ""
    if not data.strip(b"\0"):
        return "it is filled with NUL bytes"
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return "it is no JSON: cut off, or overwritten"
    return ""


def _read(context: JobContext, path: str, size: int) -> bytes | None:
    try:
        with context.layout.tree.holding(path) as (fd, name), opened_regular(name, fd) as file:
            return os.pread(file, size, 0)
    except (OSError, UnsafePath):
        return None
