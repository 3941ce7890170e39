"""All the times that govern a runner, in one record."""

from attrs import field, frozen
from attrs.validators import gt


def _seconds(default: float) -> float:
    return field(default=default, validator=gt(0), kw_only=True)


@frozen
class Timing:
    """The times of a runner, in seconds on Trio's clock, all above 0.

    Raises ValueError for any other time.
    """

    tick_s: float = _seconds(0.1)
    """Samples are due at whole numbers of this since the start of the process's first engine."""

    steady_s: float = _seconds(0.3)
    """The time between two samples while there is a link; Open Pectus's rate."""

    offline_s: float = _seconds(5)
    """The time between two samples without a link, unless the data-log interval is shorter."""

    dial_s: float = _seconds(10)
    """The time for a whole dial: connect, TLS, register, upgrade, ready."""

    call_s: float = _seconds(10)
    """The time for the aggregator's answer, from the message's last byte; then the link is lost."""

    ping_s: float = _seconds(5)
    """The time between two of our websocket pings."""

    pong_s: float = _seconds(5)
    """The time for the pong to our ping, unless other bytes move; then the link is lost."""

    answer_s: float = _seconds(1.5)
    """The time for a command handler; after 2 s the aggregator closes an unanswered connection."""

    flush_s: float = _seconds(10)
    """The time for sending what still waits when the runner is stopped."""
