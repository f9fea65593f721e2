"""What can go wrong with a repository. Each message is a whole sentence for the user, without a secret in it."""


class RepositoryError(Exception):
    """A repository can't be used, or an operation on it failed."""


class NoRepository(RepositoryError):
    """There is no repository at the place that was named."""


class RepositoryExists(RepositoryError):
    """There is one already where one should be made."""


class WrongPassword(RepositoryError):
    """No key of the repository opens with this password."""


class RepositoryLocked(RepositoryError):
    """Somebody else holds a lock that excludes ours."""


class LockLost(RepositoryError):
    """Our own lock could not be refreshed in time, or somebody removed it: nothing may be written any more."""


class Damaged(RepositoryError):
    """A file of the repository is not what its name or its seal says."""


class Missing(RepositoryError):
    """A file of the repository is not there."""


class Unavailable(RepositoryError):
    """The place where the repository is can't be reached, even after retries; trying again later may help."""


class NoSpace(RepositoryError):
    """The place where the repository is has no room left."""


class Interrupted(RepositoryError):
    """The operation was asked to stop, and did so between two steps."""
