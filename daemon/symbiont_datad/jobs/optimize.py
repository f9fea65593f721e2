"""Optimising collections: a snapshot of each, and then a process that does it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.formats.vectors import Engine
from symbiont_datad.fsops.opened import identity, open_files
from symbiont_datad.fsops.root import readable
from symbiont_datad.fsops.walk import walk
from symbiont_datad.jobs.collections import Collection, survey
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.metadata import read_documents, stores_of
from symbiont_datad.jobs.optimization import Step, plan, unknown
from symbiont_datad.jobs.vectors import OPTIMIZED
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable

_RULE = "vector_db.optimize_when"
_WAIT_S = 0.2


@dataclass(slots=True)
class _Run:
    """What a run has done so far."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    freed: int = 0
    skipped: int = 0
    later: int = 0
    optimized: int = 0


def optimize(context: JobContext) -> JobReport:
    """Optimise the collections that are worth it, or those that `context.names` has, each after a snapshot of it.

    Counts: `optimized` stores, `freed` bytes, `skipped` ones, `later`: tables whose old versions stay for a while.
    Raises DatadError for a name that no collection has.
    """
    run = _Run()
    known = read_documents(context.layout.tree, context.layout.path_of(Category.VECTOR_DB, "metadata"))
    found = survey(context, stores_of(known.values()))
    missing = unknown(found.collections, context.names)
    if missing:
        raise errors.DatadError(f"there is no collection {', '.join(map(printable, missing))}")
    settled_before = context.now - context.settings.settle_s
    steps, passed = plan(found.collections, context.settings.vectors.optimize_when, context.names, settled_before)
    for one in passed:
        severity = Severity.WARNING if one.asked else Severity.INFO
        run.findings.append(Finding("not_optimized", one.collection.shown, severity, one.reason))
    if context.dry_run:
        run.actions = [Action(OPTIMIZED, step.path, _RULE, step.reason, step.store.reclaimable) for step in steps]
    else:
        _carry_out(context, steps, run)
    interrupted = context.stopping()
    left = any(finding.severity is not Severity.INFO for finding in run.findings)
    return JobReport(
        "optimize",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(run.actions),
        tuple(run.findings),
        {"optimized": run.optimized, "freed": run.freed, "skipped": run.skipped, "later": run.later},
        actions_total=len(run.actions),
        bytes_total=sum(action.bytes for action in run.actions),
    )


def _carry_out(context: JobContext, steps: Sequence[Step], run: _Run) -> None:
    by_collection: dict[str, list[Step]] = {}
    for step in steps:
        by_collection.setdefault(step.collection.shown, []).append(step)
    saved = not context.no_snapshot
    for shown, mine in by_collection.items():
        if context.stopping():
            return
        if any(step.store.engine is Engine.LANCE for step in mine) and find_spec("lance") is None:
            _skip(run, shown, "the library for Lance is not installed: pip install 'symbiont-datad[lancedb]'")
            continue
        context.progress.begin("optimize", len(mine))
        context.progress.current = shown
        if saved:
            try:
                run.actions += _snapshot(context, mine[0].collection)
            except errors.Interrupted:
                return
            except (errors.DatadError, LedgerError, OSError) as error:
                _skip(run, shown, f"no snapshot of it could be made before: {error}")
                continue
        for step in mine:
            if context.stopping():
                return
            _optimize(context, step, run)
            context.progress.files += 1


def _skip(run: _Run, path: str, reason: str, *, busy: bool = False) -> None:
    """What is in use now is no fault of anybody's."""
    run.skipped += 1
    emit("collection_skipped", job="optimize", path=path, reason=reason)
    severity = Severity.INFO if busy else Severity.WARNING
    run.findings.append(Finding("not_optimized", path, severity, reason, "the next run tries again"))


def _snapshot(context: JobContext, collection: Collection) -> list[Action]:
    """Save the collection as it is, with what was known of it. Raises DatadError when that isn't complete."""
    from symbiont_datad.jobs import archiving
    from symbiont_datad.jobs import repository as ours
    from symbiont_datad.jobs.forgetting import forget
    from symbiont_datad.jobs.snapshots import note, readable_snapshots

    archiving.refuse_full(context)
    repository = ours.opened_or_made(context.settings, context.ledger)
    metadata = context.layout.path_of(Category.VECTOR_DB, "metadata")
    single = any(store.path == collection.path and store.engine is Engine.SQLITE for store in collection.stores)
    path = collection.path.rpartition("/")[0] if single else collection.path
    wanted = f"{collection.root}/{path}".rstrip("/") if collection.beside else path
    tag = archiving.OPTIMIZE
    with (
        ours.told(),
        ours.locked(repository, eager=True, patience_s=context.patience_s, stopping=context.stopping) as lock,
    ):
        snapshots, _ = readable_snapshots(repository)
        taken = archiving.take(context, repository, tag, [metadata, wanted], snapshots, lock)
        actions = [archiving.recorded(context, tag, taken)]
        snapshots.append((taken.id, taken.snapshot))
        actions += forget(context, repository, snapshots, tag, lock.check)
        note(context, repository, snapshots)
    if not taken.complete:
        why = next((why for _, why in (*taken.archived.torn, *taken.archived.unread)), "it changed")
        raise errors.Unusable(f"it is incomplete: {why}")
    return actions


def _optimize(context: JobContext, step: Step, run: _Run) -> None:
    before = _size(step)
    try:
        done = _worker(context, step)
    except errors.Interrupted:
        return
    except (errors.DatadError, OSError) as error:
        _skip(run, step.path, getattr(error, "strerror", None) or str(error))
        return
    run.later += done["later"]
    if done["why"]:
        _skip(run, step.path, done["why"], busy=done["busy"])
        return
    freed = max(before - _size(step), 0)
    run.optimized += 1
    run.freed += freed
    action = Action(OPTIMIZED, step.collection.shown, _RULE, f"{done['did']} ({step.reason})", freed)
    run.actions.append(action)
    emit("collection_optimized", job="optimize", path=step.path, freed=freed, reason=done["did"])
    try:
        context.ledger.record([action], context.now, context.run)
    except LedgerError as error:
        emit("ledger_failed", job="optimize", reason=str(error))


def _size(step: Step) -> int:
    """The bytes of a store, as it is now."""
    tree, path = step.collection.tree, step.store.path
    if step.store.engine is Engine.LANCE:
        return sum(entry.size for entry in walk(tree, path, on_error=lambda _path, _error: None))
    try:
        with tree.holding(path) as (fd, name):
            return sum(_size_of(fd, f"{name}{ending}") for ending in ("", "-wal", "-journal"))
    except (OSError, errors.UnsafePath):
        return 0


def _size_of(fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _worker(context: JobContext, step: Step) -> dict[str, Any]:
    """Have a process of the collection's owner do it. Raises Unusable when it fails, Interrupted when that is asked."""
    tree, path = step.collection.tree, step.store.path
    whole = step.store.engine is Engine.LANCE
    folder, _, name = (path, "", "") if whole else path.rpartition("/")
    shared = not whole and identity(tree, path) in open_files(tree.path).files
    order: dict[str, Any] = {
        "engine": step.store.engine.value,
        "name": name,
        "keep_versions_s": context.settings.vectors.keep_versions_s,
        "forced": bool(context.names),
        "shared": shared,
    }
    with ExitStack() as held:
        fd = held.enter_context(readable(".", held.enter_context(tree.directory(folder))))
        order["owner"] = _owner(fd, step)
        process = held.enter_context(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "symbiont_datad.jobs.optimizer", str(fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(fd,),
                env=_environment(),
                process_group=0,
            )
        )
        try:
            out, err = _answer(context, process, json.dumps(order).encode())
        except BaseException:
            process.kill()
            raise
    lines = out.decode(errors="replace").strip().splitlines()
    if process.returncode != 0 or not lines:
        last = (err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise errors.Unusable(printable(last[:500]))
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _answer(context: JobContext, process: "subprocess.Popen[bytes]", order: bytes) -> tuple[bytes, bytes]:
    """What the process says, when it has ended. It is ended when the run is to stop."""
    sent: bytes | None = order
    while True:
        try:
            return process.communicate(sent, timeout=_WAIT_S)
        except subprocess.TimeoutExpired:
            sent = None  # it has been taken over by then
            if context.stopping():
                process.terminate()
                process.communicate()
                raise errors.Interrupted("asked to stop") from None


def _owner(fd: int, step: Step) -> tuple[int, int] | None:
    """As root: whose process it is to become. Raises Unusable for what is root's in a directory that is not."""
    found = os.fstat(fd)
    if os.geteuid() != 0:
        return None
    if found.st_uid == 0:
        with step.collection.tree.directory(step.collection.path.rpartition("/")[0]) as above:
            if os.fstat(above).st_uid != 0:
                raise errors.Unusable("it belongs to root, in a directory of somebody else: chown it")
        return None
    return found.st_uid, found.st_gid


def _environment() -> dict[str, str]:
    """As little as it needs: it may belong to somebody else."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "HOME": "/nonexistent"}
