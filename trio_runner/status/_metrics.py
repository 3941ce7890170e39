"""The metrics, made anew for each scrape from the runners' statistics.

Names and units follow Prometheus's conventions; those of the queue are the OpenTelemetry
collector's.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from attrs import define
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from trio_runner import Histogram, Statistics
from trio_runner._histogram import Durations
from trio_runner._states import STATES
from trio_runner.status._board import Board, Sight

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

PREFIX = "trio_runner"

LINKED = "Linked"
"""The outcome of a dial that led to a link; other outcomes are named after the error's class."""

GAUGES: dict[str, tuple[str, Callable[[Statistics], float]]] = {
    "away_seconds": (
        "Time since the steady state ended, or since the runner began; 0 in steady state.",
        lambda of: of.away_for_s or 0.0,
    ),
    "queue_size": (
        "Events and samples that wait, since the aggregator has not taken them yet.",
        lambda of: of.outbox.waiting,
    ),
    "queue_size_bytes": (
        "Bytes that the waiting events and samples take.",
        lambda of: of.outbox.bytes_waiting,
    ),
    "queue_capacity_bytes": (
        "Bytes that the outbox may hold before samples are thinned.",
        lambda of: of.outbox.bytes_max,
    ),
    "queue_oldest_age_seconds": (
        "Age of the oldest waiting event or sample; 0 if none waits.",
        lambda of: of.outbox.oldest_s or 0.0,
    ),
    "disk_degraded": (
        "1 while what waits is in memory only, although it should be on disk.",
        lambda of: of.outbox.degraded is not None,
    ),
}

COUNTERS: dict[str, tuple[str, Callable[[Statistics], float]]] = {
    "events_taken": ("Events that the engine has given.", lambda of: of.outbox.events_taken),
    "samples_taken": ("Samples that were taken of the engine.", lambda of: of.outbox.samples_taken),
    "delivered": (
        "Events and samples that the aggregator has taken.",
        lambda of: of.outbox.delivered,
    ),
    "thinned": (
        "Samples given up because the outbox was full.",
        lambda of: of.outbox.thinned,
    ),
    "set_aside": (
        "Messages that were given up for good and set aside.",
        lambda of: of.outbox.set_aside,
    ),
    "sent_bytes": ("Bytes sent over all links.", lambda of: of.bytes_sent),
    "links": ("Links that were made.", lambda of: of.links),
    "links_lost": ("Links that broke.", lambda of: of.failures.get("LinkLost", 0)),
}

HISTOGRAMS: dict[str, tuple[str, Callable[[Statistics], Histogram]]] = {
    "answer_seconds": (
        "Time from the sending of a sample to the aggregator's answer.",
        lambda of: of.answer_s,
    ),
    "sample_lag_seconds": (
        "How late samples were taken, counted from when they were due.",
        lambda of: of.sample_lag_s,
    ),
}


class Metrics:
    """What a scrape gets, from a separate registry."""

    def __init__(self, board: Board, loop_lag_s: Durations) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Units(board))
        self._registry.register(_Loop(loop_lag_s))
        ProcessCollector(registry=self._registry)

    def text(self) -> str:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry).decode()


@define(eq=False)
class _Loop(Collector):
    _lag_s: Durations

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        text = "How late a task of Trio's loop woke, measured every 5 s."
        family = HistogramMetricFamily(f"{PREFIX}_loop_lag_seconds", text, labels=[])
        _add(family, [], self._lag_s.histogram())
        yield family


@define(eq=False)
class _Units(Collector):
    _board: Board

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise the registry would look at all units to learn the names

    def collect(self) -> Iterator[Metric]:
        sights = self._board.look()
        yield from _of_all(sights)
        running = [(sight.name, sight.statistics) for sight in sights if sight.statistics]
        yield from _of_running(running)


def _of_all(sights: list[Sight]) -> Iterator[Metric]:
    healthy = GaugeMetricFamily(
        f"{PREFIX}_healthy",
        "1 while /health would succeed if this were the only unit.",
        labels=["unit"],
    )
    failed = GaugeMetricFamily(f"{PREFIX}_failed", "1 if the unit no longer runs.", labels=["unit"])
    for sight in sights:
        healthy.add_metric([sight.name], sight.level != "critical")
        failed.add_metric([sight.name], sight.failed is not None)
    yield from (healthy, failed)


def _of_running(running: list[tuple[str, Statistics]]) -> Iterator[Metric]:
    for name, (text, number) in GAUGES.items():
        gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["unit"])
        for unit, known in running:
            gauge.add_metric([unit], number(known))
        yield gauge
    for name, (text, number) in COUNTERS.items():
        counter = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["unit"])
        for unit, known in running:
            counter.add_metric([unit], number(known))
        yield counter
    for name, (text, histogram) in HISTOGRAMS.items():
        family = HistogramMetricFamily(f"{PREFIX}_{name}", text, labels=["unit"])
        for unit, known in running:
            _add(family, [unit], histogram(known))
        yield family
    yield from (_dials(running), _states(running))


def _dials(running: list[tuple[str, Statistics]]) -> Metric:
    text = f"Dials by their outcome: {LINKED}, or the class of the error."
    dials = CounterMetricFamily(f"{PREFIX}_dials", text, labels=["unit", "outcome"])
    for unit, known in running:
        outcomes = {LINKED: known.links, **known.failures}
        outcomes.pop("LinkLost", None)  # this dial had led to a link
        for outcome, number in outcomes.items():
            dials.add_metric([unit, outcome], number)
    return dials


def _states(running: list[tuple[str, Statistics]]) -> Metric:
    text = "1 for the state in which the runner is, 0 for the others."
    states = StateSetMetricFamily(f"{PREFIX}_state", text, labels=["unit"])
    for unit, known in running:
        states.add_metric([unit], {state: state == known.state for state in STATES})
    return states


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    counts = accumulate(histogram.counts)
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), histogram.sum)
