"""The metrics in Prometheus' text format, by prometheus_client: its families and its writer, and nothing else of it.

Neither its own registry of the process with its default collectors is read, nor its mode for several processes.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from symbiont_datad.service.figures import Figure
from symbiont_datad.service.metrics import METRICS, PREFIX

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format's version that every reader knows; no name here needs a newer one."""
TREE = "tree"
"""The label that tells one daemon's metrics from another's, where the settings name it."""


class _Families(Collector):
    """Families that were made once."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def rendered(figures: Iterable[Figure], tree: str | None = None) -> bytes:
    """The text. `tree` is a label of every one, None: there is none.

    Raises KeyError for a metric that has no name in `METRICS`, and ValueError for labels that it has not.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(_families(figures, () if tree is None else (tree,))))
    return generate_latest(registry)


def _families(figures: Iterable[Figure], constant: tuple[str, ...]) -> Iterable[Metric]:
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for name, labels, value in figures:
        if name not in found:
            metric = METRICS[name]
            kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            names = [*([TREE] if constant else []), *metric.labels]
            found[name] = kind(f"{PREFIX}{name}", metric.help, labels=names)
        if len(labels) != len(METRICS[name].labels):
            raise ValueError(f"{name}: {labels} for {METRICS[name].labels}")
        found[name].add_metric([*constant, *labels], float(value))
    return found.values()
