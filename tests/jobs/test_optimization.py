"""Which collections are worth to be optimised, and which are left alone."""

from dataclasses import replace

import pytest

from symbiont_datad.formats.vectors import Engine
from symbiont_datad.jobs.collections import Collection
from symbiont_datad.jobs.optimization import plan, unknown
from symbiont_datad.jobs.stores import Store
from symbiont_datad.quantities import Share

NOW = 1_795_000_000.0
WHEN = Share(percent=25)


def collection(store: Store, **changes: object) -> Collection:
    """A collection with one store, last changed a day ago."""
    one = Collection(
        "notes", "collections", "/data", "vector_db/collections/notes", store.engine, 1, 8, 1, 1, store.bytes,
        store.reclaimable, NOW - 86400, "print", (store,),
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]  # fields by name


def lance(reclaimable: int = 0, fragments: int = 1) -> Store:
    """A Lance table of 1,000 bytes."""
    return Store("t.lance", Engine.LANCE, 1000, reclaimable=reclaimable, fragments=fragments)


def sqlite(reclaimable: int = 0) -> Store:
    """A database of 1,000 bytes."""
    return Store("db", Engine.SQLITE, 1000, reclaimable=reclaimable)


@pytest.mark.parametrize(
    ("store", "worth"),
    [
        (lance(249), False), (lance(250), True), (lance(0, fragments=99), False), (lance(0, fragments=100), True),
        (sqlite(249), False), (sqlite(250), True), (sqlite(), False),
        (Store("x", Engine.FAISS, 1000, reclaimable=900), False),
    ],
)  # fmt: skip
def test_what_pays(store: Store, worth: bool) -> None:
    """Enough reclaimable bytes, or very many fragments, of an engine that can be helped."""
    steps, passed = plan([collection(store)], WHEN, (), NOW)
    assert (worth, []) == (bool(steps), passed)


@pytest.mark.parametrize(
    ("changes", "why", "asked"),
    [
        ({"exposed": True}, "others can write to it", True),
        ({"engine": Engine.QDRANT}, "its server optimises it", True),
        ({"place": "/srv/vectors"}, "not in the data directory", False),
        ({"changed_at": NOW}, "changed just now", False),
    ],
)
def test_what_is_left_alone(changes: dict[str, object], why: str, asked: bool) -> None:
    """With the reason; `asked`: even when it is named."""
    one = collection(lance(900), **changes)
    steps, passed = plan([one], WHEN, (), NOW)
    assert (0, True) == (len(steps), why in passed[0].reason)
    steps, passed = plan([one], WHEN, ("notes",), NOW)
    assert (not asked, asked) == (bool(steps), bool(passed))


def test_what_is_named_is_done_whatever_pays() -> None:
    """By its name, or its path; an index called like it is of no concern, unless it is all there is."""
    index = collection(Store("i", Engine.FAISS, 10), place="indexes", path="vector_db/indexes/notes")
    notes, other = collection(sqlite()), collection(lance(900), name="other", path="vector_db/collections/other")
    for name in ("notes", "vector_db/collections/notes", "collections/notes", "notes/"):
        steps, passed = plan([notes, other, index], WHEN, (name,), NOW)
        assert (["db"], []) == ([step.store.path for step in steps], passed)
    _, passed = plan([index], WHEN, ("notes",), NOW)
    assert ["there is nothing in it that could be optimised"] == [one.reason for one in passed]
    assert ["nothing"] == unknown([notes, index], ["notes", "nothing"])


def test_an_amount_is_a_bound_too() -> None:
    """`optimize_when` may be a size."""
    assert [1, 0] == [len(plan([collection(lance(500))], Share(amount=size), (), NOW)[0]) for size in (500, 501)]
