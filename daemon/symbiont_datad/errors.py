"""The few exceptions that cross a layer, each with the exit code that a command ends with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; the numbers are restic's where restic has one."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    LEFT = 3
    """Done, but something is left: drift found, a file unread, a corrupt context."""
    NO_REPOSITORY = 10
    LOCKED = 11
    WRONG_PASSWORD = 12
    INTERRUPTED = 130


class DatadError(Exception):
    """A failure that is told to the user as one clear line, without a traceback."""

    exit_code = ExitCode.FAILED


class SettingsError(DatadError):
    """A setting can't be used. The message names the setting, its value, its source and what is allowed."""

    exit_code = ExitCode.USAGE


class UnsafePath(DatadError):
    """A path leads through a directory that somebody else could change under us."""


class TreeHeld(DatadError):
    """The tree is not touched, because its file system is not mounted."""


class Locked(DatadError):
    """Somebody else holds a lock: another keeper of the tree, or another run of the same job.

    `holder` is the process id of the other one, or None where the system does not tell.
    """

    exit_code = ExitCode.LOCKED

    def __init__(self, message: str, holder: int | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class NoRepository(DatadError):
    """There is no snapshot repository where one should be."""

    exit_code = ExitCode.NO_REPOSITORY


class WrongPassword(DatadError):
    """No key of the snapshot repository opens with the password that the settings lead to."""

    exit_code = ExitCode.WRONG_PASSWORD


class Unusable(DatadError):
    """The snapshot repository is away, damaged or full, or refused what was asked of it."""


class Interrupted(DatadError):
    """The work was asked to stop, and did so between two steps."""

    exit_code = ExitCode.INTERRUPTED
