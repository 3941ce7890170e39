"""What can be seen of an outbox."""

from attrs import frozen


@frozen
class OutboxStatistics:
    """What has gone through an outbox since it was made, and what is in it now."""

    events_taken: int
    samples_taken: int
    delivered: int
    """Events and samples that the aggregator has said it has."""
    thinned: int
    """Samples given up because the bound was reached."""
    set_aside: int
    """Messages that the aggregator will never take, given up."""
    merged: int
    """Error logs that went out, or wait, as a part of an earlier one."""
    archives_left_out: int
    """Runs whose end went without its archive, since the aggregator takes no message so big."""
    waiting: int
    """Events and samples not yet delivered, those in flight included."""
    bytes_waiting: int
    bytes_max: int
    """The bound: with more, samples are thinned."""
    oldest_s: float | None
    """How long ago the oldest of them was taken (s), None if none waits."""
    degraded: str | None = None
    """Why what waits is in memory only although it should be on disk, None if all is well."""
