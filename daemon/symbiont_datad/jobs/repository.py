"""The snapshot repository as jobs and commands use it: opened, made, locked, and with its failures told as ours."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.fsops.lock import hold as hold_file
from symbiont_datad.fsops.memory import give_back_large_blocks
from symbiont_datad.fsops.mount import is_of_this_machine
from symbiont_datad.fsops.process import this_process
from symbiont_datad.jobs.context import JobSettings, RepositorySettings
from symbiont_datad.jobs.secrets import repository_password
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import printable
from symbiont_datad.restic import errors as restic
from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.index_cache import IndexCache
from symbiont_datad.restic.known import Memory
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import SETTLE_S, HeldLock, Identity, hold
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.repository import Repository, create_repository, open_repository

MARK = "//repository"
"""The ledger's mark that there was a repository at a place. No file of the tree has such a path."""

_PATIENCE_STEP_S = 0.5
_MAKING_S = 30.0

_OTHER_PASSWORD = (
    "; where encryption or a password was turned on or off after the repository was made, `repository key add` lets it "
    "be opened with the new one too"
)
_TOLD: tuple[tuple[type[restic.RepositoryError], type[errors.DatadError], str], ...] = (
    (restic.NoRepository, errors.NoRepository, "; `repository init` makes one"),
    (restic.WrongPassword, errors.WrongPassword, _OTHER_PASSWORD),
    (restic.RepositoryLocked, errors.Locked, ""),
    (restic.Interrupted, errors.Interrupted, ""),
    (restic.RepositoryError, errors.Unusable, ""),
)


@contextmanager
def told() -> Iterator[None]:
    """Tell what goes wrong with a repository as one of our own errors, with its exit code and a line for the user."""
    try:
        yield
    except restic.RepositoryError as error:
        if isinstance(error, restic.LockLost) and isinstance(error.__cause__, restic.RepositoryLocked):
            error = error.__cause__  # see `sure`
        ours, advice = next((ours, advice) for kind, ours, advice in _TOLD if isinstance(error, kind))
        raise ours(f"{printable(str(error))}{advice}") from error


def identity() -> Identity:
    """Who this process is, for locks, keys and snapshots."""
    return Identity(**asdict(this_process()))


def place(settings: RepositorySettings) -> Backend:
    """The storage at the repository's location; credentials of a cloud come from the environment."""
    return backend_at(settings.location, os.environ)


def opened(settings: RepositorySettings) -> Repository:
    """The repository, open. Raises SettingsError, NoRepository, WrongPassword or another DatadError."""
    give_back_large_blocks()
    password = repository_password(settings.secrets)
    with told():
        return open_repository(place(settings), password, level=settings.level)


def made(settings: RepositorySettings) -> Repository:
    """A new repository. Raises SettingsError, or a DatadError: where there is one already, too."""
    give_back_large_blocks()
    password = repository_password(settings.secrets)
    with told():
        repository = create_repository(place(settings), password, identity(), time.time(), level=settings.level)
    emit("repository_created", path=repository.backend.location, id=repository.config.id)
    return repository


def opened_or_made(settings: JobSettings, ledger: Ledger) -> Repository:
    """The repository, open; made where there never was one.

    If the ledger knows that there was one here, it is lost or its disk is not mounted: nothing is made then, nor where
    the ledger can't tell. Raises as `opened` does.
    """
    where = settings.repository
    mark = f"{MARK}/{where.location}"
    known = _mark_of(ledger, mark)
    try:
        repository = opened(where)
    except errors.NoRepository:
        if known is None:
            raise
        if known:
            raise errors.NoRepository(
                f"{where.location}: the repository that was there is gone (is its disk mounted?); nothing was written. "
                "`repository init` makes a new one"
            ) from None
        with _alone(settings):  # sweep and backup may both be the first
            try:
                repository = opened(where)
            except errors.NoRepository:
                try:
                    repository = made(where)
                except errors.Unusable as error:
                    if not isinstance(error.__cause__, restic.RepositoryExists):
                        raise
                    repository = opened(where)  # another host was quicker
    if known is not None and known != repository.config.id:
        try:
            ledger.update_marks({mark: repository.config.id}, ())
        except LedgerError as error:
            emit("ledger_failed", reason=str(error))
    return repository


@contextmanager
def _alone(settings: JobSettings) -> Iterator[None]:
    """Hold the lock under which this machine makes its repository; who has it is waited for."""
    until = time.monotonic() + _MAKING_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold_file(settings.lock_path("repository"), "the repository is being made"))
                break
            except errors.Locked:
                if time.monotonic() > until:
                    raise
                time.sleep(_PATIENCE_STEP_S / 5)
        yield


def _mark_of(ledger: Ledger, mark: str) -> str | None:
    """The id of the repository that there was; empty when there was none, None when the ledger does not know."""
    if not ledger.path.is_absolute():  # it is in memory, since the real one can't be opened
        return None
    try:
        return ledger.mark(mark)
    except LedgerError as error:
        emit("ledger_failed", reason=str(error))
        return None


@contextmanager
def locked(
    repository: Repository,
    *,
    exclusive: bool = False,
    eager: bool = False,
    patience_s: float = 0.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[HeldLock]:
    """Hold a lock on the repository while the block runs. Who else holds one that excludes it is waited for so long.

    An `eager` one begins at once. Before anything but packs is written or removed there, and before anything is told of
    what was read, it has to be confirmed (see `sure`).

    While it is held, SIGHUP does not end this process: `restic unlock` sends one to find out whether a lock's process
    lives (see `restic.lock`). Raises the errors of `restic`: to be used inside `told`.
    """

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if stopping():
                raise restic.Interrupted("asked to stop")
            time.sleep(min(left, _PATIENCE_STEP_S))

    with (
        _deaf_to_hangups(),
        hold(
            repository,
            identity(),
            exclusive=exclusive,
            eager=eager,
            retry_for_s=patience_s,
            settle_s=_settle_s(repository.backend),
            sleep=sleep,
        ) as lock,
    ):
        yield lock


def _settle_s(backend: Backend) -> float:
    """How long a lock file may take until everybody sees it."""
    here = isinstance(backend, LocalBackend) and is_of_this_machine(backend.location)
    return 0.0 if here else SETTLE_S


def sure(look: Callable[[], None]) -> None:
    """`check` or `confirm` a lock while a writer is at work. That somebody else was quicker to lock is raised as
    LockLost, after which a writer writes nothing more.
    """
    try:
        look()
    except restic.RepositoryLocked as error:
        raise restic.LockLost(str(error)) from error


@contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def memory_path(settings: JobSettings, repository: Repository, job: str) -> Path:
    """Where what a job's last snapshot has seen is remembered."""
    return _cache(settings) / f"{repository.config.id}.{job}.seen"


def _cache(settings: JobSettings) -> Path:
    return settings.daemon_dir / "cache"


def remembered(settings: JobSettings, repository: Repository, job: str) -> Memory:
    """What a job's last snapshot has seen; the index may be had from where it is kept, too.

    To be read under the lock: a prune takes away what it is about.
    """
    repository.index_cache = IndexCache(_cache(settings) / f"{repository.config.id}.index", repository.config.id)
    return Memory.load(memory_path(settings, repository, job), repository.config.id, _index_files(repository))


def remember(settings: JobSettings, repository: Repository, job: str, memory: Memory) -> None:
    """Keep what a snapshot has seen, after it was saved and still under the lock."""
    memory.save(memory_path(settings, repository, job), _index_files(repository))
    repository.keep_index()


def _index_files(repository: Repository) -> list[str]:
    return [name for name, _ in repository.backend.list(FileKind.INDEX)]
