"""The manifest of audit archives on the disk: lines added, and all of it compared with what is there.

What was written last (how many lines, the hash of the last) is kept in the daemon's own directory too. So a manifest
that was cut short, or replaced by another that is sound in itself, is found as well.
"""

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats.chain import FIRST, Break, Listed, Removed, hash_of, line_of, lines_of, read_chain
from symbiont_datad.formats.rotated import rotated
from symbiont_datad.fsops.read import chunks, opened_regular
from symbiont_datad.fsops.root import Tree, pinned, sync_directory
from symbiont_datad.fsops.walk import walk
from symbiont_datad.fsops.write import append_line, write_atomic
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.log_files import MANIFEST
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Finding, Severity

_STATE = "audit-chain.json"
_REMOVALS = ("file_removed", "file_quarantined", "log_archive_removed")


@dataclass(frozen=True, slots=True)
class State:
    """What was written last, and the hash of the line that is to be the next one, while it is written.

    `pending`: plain names of archives that are made and not listed yet.
    """

    lines: int = 0
    last: str = FIRST
    pending: tuple[str, ...] = ()
    next: str = ""


class AuditChain:
    """The manifest of one tree's audit logs."""

    def __init__(self, settings: JobSettings) -> None:
        self._tree: Tree = settings.layout.tree
        self._directory = settings.logs.audit
        self._daemon_dir = str(settings.daemon_dir)

    @property
    def path(self) -> str:
        """Where the manifest is, relative to the root."""
        return f"{self._directory}/{MANIFEST}"

    def name_of(self, path: str) -> str:
        """What an archive is called in the manifest."""
        return path.removeprefix(f"{self._directory}/")

    def expect(self, path: str) -> None:
        """Write down that an archive is about to be made, by its plain path. On the disk when this returns."""
        state = self._known(lines_of(self.content() or b""))
        self._write(replace(state, pending=tuple(dict.fromkeys((*state.pending, self.name_of(path))))))

    def forget(self, path: str) -> None:
        """The archive was not made after all."""
        state = self.state()
        name = self.name_of(path)
        if state is not None and name in state.pending:
            self._write(replace(state, pending=tuple(one for one in state.pending if one != name)))

    def pending(self) -> frozenset[str]:
        """The plain names of archives that we have made and not listed yet."""
        state = self.state()
        return frozenset(state.pending) if state is not None else frozenset()

    def add(self, path: str, size: int, digest: str, now: float) -> None:
        """Add an archive, unless the last line is about it already. On the disk when this returns. Raises OSError."""
        self._add(Listed(self.name_of(path), size, digest), now)

    def add_removed(self, path: str, reason: str, now: float) -> None:
        """Add that a rule has removed an archive."""
        self._add(Removed(self.name_of(path), reason), now)

    def _add(self, entry: Listed | Removed, now: float) -> None:
        lines = lines_of(self.content() or b"")
        state = self._known(lines)
        if not (state.lines == len(lines) > 0 and _entry(lines) == entry):
            at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            # Bound to what was written last, not to what is there: where the two differ, that stays to be seen.
            line = line_of(entry, len(lines) + 1, state.last, at)
            state = replace(state, next=hash_of(line))
            self._write(state)
            self._append(line)
            state = State(len(lines) + 1, state.next, state.pending)
        name = _plain(entry.archive)
        self._write(replace(state, pending=tuple(one for one in state.pending if one != name)))

    def _known(self, lines: list[bytes]) -> State:
        """What was written last, given the lines that are there. Where nothing was kept, they are believed."""
        state = self.state()
        if state is None:
            return State(len(lines), hash_of(lines[-1]) if lines else FIRST)
        if state.next and len(lines) == state.lines + 1 and hash_of(lines[-1]) == state.next:
            return State(len(lines), state.next, state.pending)  # a kill came right after it
        return state

    def _append(self, line: bytes) -> None:
        with self._tree.directory(self._directory) as fd:
            append_line(fd, MANIFEST, line)
            with opened_regular(MANIFEST, fd) as file:
                os.fsync(file)
            sync_directory(fd)

    def content(self) -> bytes | None:
        """What the manifest holds; None when there is none."""
        try:
            with self._tree.directory(self._directory) as fd, opened_regular(MANIFEST, fd) as file:
                return b"".join(chunks(file))
        except FileNotFoundError:
            return None

    def state(self) -> State | None:
        """What is kept of what was written last; None when nothing is."""
        try:
            content = json.loads(Path(self._daemon_dir, _STATE).read_bytes())
            pending = tuple(map(str, content["pending"]))
            return State(int(content["lines"]), str(content["last"]), pending, str(content["next"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _write(self, state: State) -> None:
        content = {"schema": 1, **asdict(state)}
        with pinned(self._daemon_dir) as fd:
            write_atomic(fd, _STATE, json.dumps(content).encode())


def _entry(lines: list[bytes]) -> Listed | Removed | None:
    """What the last line says."""
    *_, last = read_chain(b"\n".join(lines) + b"\n")
    return last.entry


def _plain(name: str) -> str:
    """The plain name of an archive, however it is stored."""
    folder, slash, base = name.rpartition("/")
    place = rotated(base)
    return f"{folder}{slash}{place.plain.name}" if place is not None else name


def removed_by_rules(settings: JobSettings, ledger: Ledger) -> set[str]:
    """The paths of audit archives that retention has removed, by the ledger; none when it can't be read."""
    with suppress(LedgerError):
        rows = ledger.actions(path=settings.logs.audit, kinds=_REMOVALS)
        return {row.path for row in rows if row.state != "failed"}
    return set()


def verify(settings: JobSettings, explained: Collection[str] = frozenset()) -> list[Finding]:
    """Compare the manifest with itself, with what was written last, and with the archives, each of which is read.

    `explained`: paths that a rule has removed, by the ledger. Nothing is changed.
    """
    chain = AuditChain(settings)
    try:
        content, state = chain.content(), chain.state()
    except NotADirectoryError:
        return []  # an obstruction, which is told of elsewhere
    except (OSError, UnsafePath) as error:
        return [Finding("audit_unread", chain.path, Severity.WARNING, str(error), "let the daemon's user read it")]
    findings: list[Finding] = []
    archives: dict[str, Listed | Removed] = {}
    for one in read_chain(content or b""):
        if isinstance(one, Break):
            remedy = f"what it was before is in the backups: symbiont-datad versions {chain.path}"
            findings.append(_error("audit_manifest_broken", chain.path, f"line {one.number} {one.reason}", remedy))
        if one.entry is not None:
            archives[one.entry.archive] = one.entry
    hashes = [hash_of(line) for line in lines_of(content or b"")]
    findings += _against_state(chain, content, hashes, state)
    pending = set(state.pending) if state is not None else set[str]()
    findings += _archives(settings, chain, archives, pending, explained)
    return findings


def _against_state(chain: AuditChain, content: bytes | None, hashes: list[str], state: State | None) -> list[Finding]:
    if state is None or not state.lines:
        return []
    remedy = f"get it back from a backup: symbiont-datad versions {chain.path}"
    if content is None:
        return [_error("audit_manifest_missing", chain.path, f"it had {state.lines} lines", remedy)]
    if len(hashes) < state.lines:
        detail = f"it has {len(hashes)} lines, and had {state.lines}"
        return [_error("audit_manifest_cut", chain.path, detail, remedy)]
    if hashes[state.lines - 1] != state.last:
        detail = f"line {state.lines} is not the one that was written; the manifest was replaced"
        return [_error("audit_manifest_broken", chain.path, detail, remedy)]
    return []


def _archives(
    settings: JobSettings,
    chain: AuditChain,
    listed: dict[str, Listed | Removed],
    pending: set[str],
    explained: Collection[str],
) -> list[Finding]:
    findings: list[Finding] = []
    there: set[str] = set()

    def unread(path: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        findings.append(Finding("audit_unread", path, Severity.WARNING, reason, "let the daemon's user read it"))

    with suppress(UnsafePath, FileNotFoundError, NotADirectoryError):
        there = {
            chain.name_of(entry.path)
            for entry in walk(settings.layout.tree, settings.logs.audit, on_error=unread)
            if entry.is_file and rotated(entry.path.rpartition("/")[2]) is not None
        }
    for name, entry in listed.items():
        path = f"{settings.logs.audit}/{name}"
        remedy = f"compare it with a backup: symbiont-datad versions {path}"
        if isinstance(entry, Removed):
            if name in there:
                detail = "the manifest says that a rule has removed it, and it is there"
                findings.append(Finding("audit_archive_unlisted", path, Severity.WARNING, detail, remedy))
        elif name not in there:
            if path not in explained:
                findings.append(_error("audit_archive_missing", path, "the manifest lists it", remedy))
        else:
            try:
                size, digest = _digest(settings.layout.tree, path)
            except (OSError, UnsafePath) as error:
                findings.append(Finding("audit_unread", path, Severity.WARNING, str(error), ""))
                continue
            if (size, digest) != (entry.bytes, entry.sha256):
                detail = f"its SHA-256 is {digest[:16]}…, and was {entry.sha256[:16]}… when it was written"
                findings.append(_error("audit_archive_altered", path, detail, remedy))
    for name in sorted(there - listed.keys()):
        if _plain(name) not in pending:
            path = f"{settings.logs.audit}/{name}"
            detail = "it is in no line of the manifest: no rotation of this daemon has made it"
            remedy = "look where it comes from; move it elsewhere if it belongs to somebody else"
            findings.append(Finding("audit_archive_unlisted", path, Severity.WARNING, detail, remedy))
    return findings


def _digest(tree: Tree, path: str) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    digest, size = sha256(), 0
    with tree.holding(path) as (folder_fd, name), opened_regular(name, folder_fd) as fd:
        for data in chunks(fd):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def _error(kind: str, path: str, detail: str, remedy: str) -> Finding:
    return Finding(kind, path, Severity.ERROR, detail, remedy)
