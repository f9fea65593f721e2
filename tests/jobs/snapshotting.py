"""What the tests of snapshots share: the repository of some settings, and what its snapshots hold."""

import os
import time

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.repository import identity, opened
from symbiont_datad.jobs.snapshots import Named, readable_snapshots
from symbiont_datad.restic.crypto import Scrypt
from symbiont_datad.restic.find import walk
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.repository import create_repository
from symbiont_datad.restic.tree import Node


def cheap_repository(settings: JobSettings) -> JobSettings:
    """Make the repository of some settings, with a key that costs little; hand the settings back."""
    backend = backend_at(settings.repository.location, {})
    create_repository(backend, "", identity(), time.time(), scrypt=Scrypt(1 << 10, 8, 1))
    return settings


def snapshots(settings: JobSettings, tag: str = "") -> list[Named]:
    """The snapshots with a tag, the oldest first."""
    found, unread = readable_snapshots(opened(settings.repository))
    assert [] == unread
    return [one for one in found if not tag or tag in one[1].tags]


def held_by(settings: JobSettings, one: Named) -> dict[str, Node]:
    """The files in a snapshot, by their paths relative to the root."""
    root = f"{settings.layout.root}/".lstrip("/")
    found = walk(opened(settings.repository), bytes.fromhex(one[1].tree))
    return {os.fsdecode(path).removeprefix(root): node for path, node in found if node.type != "dir"}


def content_of(settings: JobSettings, node: Node) -> bytes:
    """The content of a file in a snapshot."""
    repository = opened(settings.repository)
    repository.need_index()
    return b"".join(repository.load_blob(bytes.fromhex(blob)) for blob in node.content or ())
