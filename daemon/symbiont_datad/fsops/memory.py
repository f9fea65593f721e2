"""Memory: given back by processes that handle packs of many megabytes, and left in peace while much is made at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 1 << 20


def give_back_large_blocks() -> None:
    """Have the C library return blocks from 1 MiB on to the system as soon as they are freed.

    glibc raises that bound up to 32 MiB by itself when such blocks come and go (mallopt(3), "M_MMAP_THRESHOLD"), and
    then keeps them, for each thread apart: a third more memory in a backup. Smaller blocks come from one arena, where
    each thread would have its own, full of holes. Other C libraries have no such call and are left as they are.
    """
    import ctypes  # here, because most processes never need it

    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 1)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No search for cycles while the block runs: for work that makes very many objects, none of them in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
