"""All the times that rule a runner, in one record."""

from attrs import field, frozen
from attrs.validators import gt


def _seconds(default: float) -> float:
    return field(default=default, validator=gt(0), kw_only=True)


@frozen
class Timing:
    """The times of a runner, all in seconds on Trio's clock, all above 0.

    Raises ValueError for a time that is not.
    """

    tick_s: float = _seconds(0.1)
    """Samples are due at whole numbers of this since the start of the process's first engine."""

    steady_s: float = _seconds(0.3)
    """Between two samples while there is a link; Open Pectus's rate."""

    offline_s: float = _seconds(5)
    """Between two samples while there is none, unless the unit's data-log interval is shorter."""

    dial_s: float = _seconds(10)
    """For a whole dial: connect, TLS, register, upgrade, ready."""

    call_s: float = _seconds(10)
    """For the aggregator's answer, since the message's last byte left; then the link is lost."""

    ping_s: float = _seconds(5)
    """Between two websocket pings of ours."""

    pong_s: float = _seconds(5)
    """For the pong to a ping of ours, unless other bytes move; then the link is lost."""

    answer_s: float = _seconds(1.5)
    """For a command handler; the aggregator closes the connection after 2 s without an answer."""

    flush_s: float = _seconds(10)
    """For sending what still waits when the runner is stopped."""
