"""Whether a file on the disk holds what a snapshot says."""

import os
from hashlib import sha256

from symbiont_datad.restic.errors import Missing
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import Node

_STEP = 1 << 20


def holds(repository: Repository, fd: int, node: Node) -> bool:
    """Whether an open file has exactly the content of a file's node. The index must have been read.

    Nothing of the repository's data is read: a chunk's id is the hash of its content. Raises Missing, or OSError.
    """
    position = 0
    for text in node.content or ():
        blob = bytes.fromhex(text)
        place = repository.find(blob)
        if place is None:
            raise Missing(f"blob {text} is in no pack that the index knows")
        found, left = sha256(), place.size
        while left and (data := os.pread(fd, min(left, _STEP), position)):
            found.update(data)
            position += len(data)
            left -= len(data)
        if left or found.digest() != blob:
            return False
    return os.fstat(fd).st_size == position
