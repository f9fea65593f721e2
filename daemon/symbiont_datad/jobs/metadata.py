"""`vector_db/metadata/NAME.json`: what is known of a collection, for agents and people to read.

One file for each name; an index that is called like a collection is told of in the collection's. Nothing is believed of
what stands in such a file but figures of a store that has not changed since: the file lies where agents can write.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats.vectors import Engine
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.jobs.collections import INDEXES, Collection
from symbiont_datad.jobs.stores import Store
from symbiont_datad.report import printable

KEEPER = "symbiont-datad"
_LARGEST = 4 << 20
_LONGEST = 200  # bytes of a file's name


def documents(collections: Iterable[Collection], optimised: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """What the files should say, by their names. `optimised`: when a collection was, by its path in findings."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(collections, key=lambda one: (one.place == INDEXES, one.shown)):
        told = describe(one, optimised.get(one.shown))
        name = _file_name(one)
        if one.place == INDEXES and name in found:
            found[name]["index"] = told
        else:
            found[name] = {"schema": 1, "kept_by": KEEPER, **told}
    return found


def encode(document: Mapping[str, Any]) -> bytes:
    """A document as it stands in its file."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def read_documents(tree: Tree, path: str) -> dict[str, bytes]:
    """The documents of ours in the directory at `path`, by the names of their files. Other files are left out."""
    found: dict[str, bytes] = {}
    try:
        with tree.directory(path) as fd, readable(".", fd) as listed:
            for name in os.listdir(listed):
                if name.endswith(".json") and (data := _read(name, listed)) is not None and _is_ours(data):
                    found[name] = data
    except (OSError, UnsafePath):
        pass
    return found


def stores_of(documents: Iterable[bytes]) -> dict[str, Store]:
    """The stores that documents tell of, by their path in findings. What makes no sense is left out."""
    found: dict[str, Store] = {}
    for data in documents:
        document = json.loads(data)
        for part in (document, document.get("index")):
            stores = part.get("stores") if isinstance(part, dict) else None
            for told in stores if isinstance(stores, list) else ():
                try:
                    store = Store(
                        str(told["path"]), Engine(told["engine"]), int(told["bytes"]), _figure(told["rows"]),
                        _figure(told["dimension"]), fingerprint=str(told["fingerprint"]),
                    )  # fmt: skip
                except (TypeError, ValueError, KeyError, OverflowError):
                    continue
                found[store.path] = store
    return found


def _figure(value: object) -> int | None:
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    raise ValueError("no figure")


def _read(name: str, fd: int) -> bytes | None:
    try:
        with opened_regular(name, fd) as file, open(file, "rb", closefd=False) as data:
            return data.read(_LARGEST)
    except OSError:
        return None


def _is_ours(data: bytes) -> bool:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("kept_by") == KEEPER


def _file_name(one: Collection) -> str:
    name = os.path.basename(one.name)
    if one.beside or len(os.fsencode(name)) > _LONGEST:
        print_ = blake2b(os.fsencode(one.shown), digest_size=4).hexdigest()
        name = f"{os.fsdecode(os.fsencode(name)[:_LONGEST])}-{print_}"
    return f"{name}.json"


def describe(one: Collection, optimised_at: float | None) -> dict[str, Any]:
    """What is known of a collection, by the names of the documented JSON."""
    prefix = f"{one.root}/" if one.beside else ""
    return {
        "name": printable(one.name),
        "place": printable(one.place),
        "path": printable(one.shown),
        "engine": one.engine,
        "rows": one.rows,
        "dimension": one.dimension,
        "versions": one.versions,
        "files": one.files,
        "bytes": one.bytes,
        "reclaimable_bytes": one.reclaimable,
        "last_changed": moment(one.changed_at),
        "last_optimised": moment(optimised_at),
        "fingerprint": one.fingerprint,
        "stores": [
            {
                "path": printable(f"{prefix}{store.path}"),
                "engine": store.engine,
                "rows": store.rows,
                "dimension": store.dimension,
                "versions": store.versions,
                "fragments": store.fragments,
                "bytes": store.bytes,
                "reclaimable_bytes": store.reclaimable,
                "fingerprint": store.fingerprint,
            }
            for store in one.stores
        ],
    }


def moment(at: float | None) -> str | None:
    """A time (seconds since the epoch) in RFC 3339, UTC; None for no time."""
    if not at:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
