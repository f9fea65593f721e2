"""Being told to stop, by a signal."""


class Stop:
    """A flag that is set once. A signal's handler may set it.

    A handler may interrupt any line of the main thread, and so may a second signal the handler of the first. An Event
    takes a lock to be set, and would then wait for itself for ever.
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """End between two steps."""
        self._set = True

    def is_set(self) -> bool:
        """Whether that was asked for."""
        return self._set
