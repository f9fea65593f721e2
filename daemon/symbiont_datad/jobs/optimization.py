"""What of the collections is worth to be optimised, and what is left alone. Pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from symbiont_datad.formats.vectors import Engine
from symbiont_datad.jobs.collections import Collection
from symbiont_datad.jobs.stores import Store
from symbiont_datad.quantities import Share, format_size

_FRAGMENTS = 100
"""So many fragments of a Lance table are worth to be made one, whatever can be freed: each is a file to open."""


@dataclass(frozen=True, slots=True)
class Step:
    """One store to optimise, and why."""

    collection: Collection
    store: Store
    reason: str

    @property
    def path(self) -> str:
        """The store's path as findings have it."""
        prefix = f"{self.collection.root}/" if self.collection.beside else ""
        return f"{prefix}{self.store.path}"


@dataclass(frozen=True, slots=True)
class Passed:
    """A collection that is not optimised although it would pay, or (`asked`) somebody named it; and why."""

    collection: Collection
    reason: str
    asked: bool = False


_NOTHING = "there is nothing in it that could be optimised"


def plan(
    collections: Sequence[Collection], when: Share, names: Sequence[str], settled_before: float
) -> tuple[list[Step], list[Passed]]:
    """What is worth to be optimised, and what is passed over with the reason. Pure.

    Without names: where enough is reclaimable, what others can write to is left alone, as are roots beside the tree and
    what was changed since `settled_before` (seconds since the epoch). What is named is optimised where it can be.
    """
    steps: list[Step] = []
    passed: list[Passed] = []
    for one in collections:
        asked = bool(names)
        if asked and not _is_named(one, names):
            continue
        reason = _reason_against(one, asked, settled_before)
        mine = [Step(one, store, why) for store in one.stores if (why := _worth(store, when, asked))]
        if reason and (asked or mine):
            passed.append(Passed(one, reason, asked))
        if reason:
            continue
        steps += mine
        if asked and not mine:
            passed.append(Passed(one, _NOTHING, asked))
    # An index that is called like a collection is of no concern when that one is meant.
    meant = {os.path.basename(step.collection.name) for step in steps}
    return steps, [
        one for one in passed if one.reason != _NOTHING or os.path.basename(one.collection.name) not in meant
    ]


def unknown(collections: Sequence[Collection], names: Sequence[str]) -> list[str]:
    """Those of the names that no collection has."""
    return [name for name in names if not any(_is_named(one, [name]) for one in collections)]


def _is_named(one: Collection, names: Sequence[str]) -> bool:
    known = {one.name, one.shown, os.path.basename(one.name), f"{one.place}/{one.name}"}
    return any(name.rstrip("/") in known for name in names)


def _reason_against(one: Collection, asked: bool, settled_before: float) -> str:
    if one.engine is Engine.QDRANT:
        return "its server optimises it"
    if one.exposed:
        return "others can write to it: `check` tells what to put right first"
    if one.beside and not asked:
        return "it is not in the data directory; `vectors optimize NAME` does it"
    if one.changed_at >= settled_before and not asked:
        return "it was changed just now"
    return ""


def _worth(store: Store, when: Share, asked: bool) -> str:
    """Why a store is worth it, in words; empty when it isn't."""
    if store.engine not in (Engine.LANCE, Engine.SQLITE):
        return ""
    if store.reclaimable > 0 and store.reclaimable >= when.of(store.bytes):
        return f"{format_size(store.reclaimable)} of {format_size(store.bytes)} can be freed"
    if (store.fragments or 0) >= _FRAGMENTS:
        return f"{store.fragments} fragments hold {store.rows or 0} rows"
    return "asked for" if asked else ""
