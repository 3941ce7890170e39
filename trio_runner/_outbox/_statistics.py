"""The figures that an outbox shows."""

from attrs import frozen


@frozen
class OutboxStatistics:
    """What has gone through an outbox since it was made, and what is in it now."""

    events_taken: int
    samples_taken: int
    delivered: int
    """Events and samples that the aggregator has taken."""
    thinned: int
    """Samples dropped because the bound was reached."""
    set_aside: int
    """Messages given up for good: set aside, or samples of a run that the aggregator does not
    know."""
    merged: int
    """Error logs that went out, or wait, as a part of an earlier one."""
    archives_left_out: int
    """Runs whose end goes out without its archive: it was too big, or did not get through with
    it."""
    waiting: int
    """Events and samples not yet delivered, including those in flight."""
    bytes_waiting: int
    bytes_max: int
    """The bound: above it, samples are thinned."""
    oldest_s: float | None
    """How long ago the oldest waiting message was taken (s), or None if none waits."""
    degraded: str | None = None
    """Why what waits is only in memory although it should be on disk, or None if all is well."""
