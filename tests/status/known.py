"""Statistics of a runner that is well, which a test can change."""

from typing import Any

from attrs import evolve

from trio_runner import Histogram, OutboxStatistics, Statistics

NONE = Histogram(bounds=(0.1, 1.0), counts=(0, 0, 0), sum=0.0)

WELL = Statistics(
    unit="Skid",
    state="Connected",
    state_for_s=60.0,
    away_for_s=None,
    engine_id="host_Skid",
    run_id=None,
    dials=1,
    links=1,
    failures={},
    bytes_sent=1000,
    unanswered=0,
    answer_s=NONE,
    sample_lag_s=NONE,
    last_failure=None,
    outbox=OutboxStatistics(
        events_taken=0,
        samples_taken=200,
        delivered=200,
        thinned=0,
        set_aside=0,
        merged=0,
        archives_left_out=0,
        waiting=0,
        bytes_waiting=0,
        bytes_max=64 * 2**20,
        oldest_s=None,
    ),
)


def known(*, outbox: dict[str, Any] | None = None, **changes: Any) -> Statistics:
    """Return the statistics of a runner that is well, with these changes."""
    return evolve(WELL, outbox=evolve(WELL.outbox, **(outbox or {})), **changes)
