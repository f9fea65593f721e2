"""Memory that is given back: for processes that handle packs of many megabytes and should stay small."""

from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def give_back_large_blocks() -> None:
    """Have the C library return blocks from 1 MiB on to the system as soon as they are freed.

    glibc raises that bound up to 32 MiB by itself when such blocks come and go (mallopt(3), "M_MMAP_THRESHOLD"), and
    then keeps them, for each thread apart: a third more memory in a backup. Other C libraries have no such call and
    are left as they are.
    """
    import ctypes  # here, because most processes never need it

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
