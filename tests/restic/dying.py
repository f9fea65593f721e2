"""A module for a `Crew` whose process is killed over its work, as nobody can time it from outside."""

import os
import signal

import msgspec

from symbiont_datad.restic.crew import Serve
from symbiont_datad.restic.notes import small_of
from symbiont_datad.restic.wanted import note_of


def serve(order: bytes) -> Serve:
    """It makes the first file that it is asked for, half of the second, and is killed. The order is ignored."""

    def answer(text: bytearray, dir_fd: int) -> bytes:
        _, wanted = msgspec.msgpack.decode(text)
        for one, content in zip(wanted, (b"whole", b"ha"), strict=False):
            fd = os.open(small_of(note_of(one)).name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=dir_fd)
            os.write(fd, content)
            os.close(fd)
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    return answer
