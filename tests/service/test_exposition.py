"""From figures to Prometheus' text format, read back by prometheus_client's own parser."""

from math import inf

import pytest
from prometheus_client.parser import text_string_to_metric_families

from symbiont_datad.service.exposition import rendered


def read(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples by name, each with its labels."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_it_reads_back() -> None:
    """Names get their prefix, labels their values, truths are 1, and infinity is one."""
    text = rendered(
        [("alive", (), True), ("repairs_total", ('a"\\\nb',), 3), ("forecast_full_seconds", ("bytes",), inf)]
    )
    assert {
        "symbiont_datad_alive": [({}, 1.0)],
        "symbiont_datad_repairs_total": [({"kind": 'a"\\\nb'}, 3.0)],
        "symbiont_datad_forecast_full_seconds": [({"resource": "bytes"}, inf)],
    } == read(text)
    assert b"# TYPE symbiont_datad_repairs_total counter\n" in text
    assert b"# HELP symbiont_datad_alive Whether the guard and the schedule move: 1, or 0.\n" in text
    assert b"_created" not in text


def test_a_label_for_the_tree() -> None:
    """Where it is asked for, each has it."""
    text = rendered([("alive", (), True), ("repairs_total", ("owner_restored",), 0)], "ada")
    assert {
        "symbiont_datad_alive": [({"tree": "ada"}, 1.0)],
        "symbiont_datad_repairs_total": [({"tree": "ada", "kind": "owner_restored"}, 0.0)],
    } == read(text)


def test_what_is_not_documented_is_refused() -> None:
    """An unknown name, and labels that a metric does not have."""
    with pytest.raises(KeyError):
        rendered([("invented", (), 1)])
    with pytest.raises(ValueError, match="alive"):
        rendered([("alive", ("x",), 1)])
