"""What the aggregator says in answers and closes, made fit for our log."""

import functools

import trio_websocket
from attrs import evolve

from trio_runner import protocol
from trio_runner._errors import LinkLost
from trio_runner._printable import printable
from trio_runner.protocol import messages as m

_BROKEN_RULES = {1002, 1003, 1007, 1009}
"""Close codes for data that a side cannot take: not a websocket frame, not UTF-8, or too big."""


@functools.lru_cache(1)  # nearly all answers are the same Success
def decode_answer(result: str) -> m.MessageBase:
    """Return the message that an answer holds.

    Raises LinkLost if it holds none, since we then do not know whether our message has arrived. The
    texts of an error are made printable here, so that they can be logged and kept as they are.
    """
    try:
        answer = protocol.decode_json(result)
    except protocol.DecodeError as error:
        raise unreadable(str(error)) from None
    return _printable(answer) if isinstance(answer, m.ErrorMessage) else answer


def unreadable(problem: str) -> LinkLost:
    """Return the error for an answer that cannot be read."""
    return LinkLost(
        f"The aggregator answered with something that is not a message: {printable(problem)}"
    )


def _printable(answer: m.ErrorMessage) -> m.ErrorMessage:
    said: dict[str, str] = {
        name: printable(text)
        for name in ("message", "exception_message", "protocol_msg")
        if (text := getattr(answer, name, None)) is not None
    }
    return evolve(answer, **said)  # type: ignore[arg-type]


def why_closed(closed: trio_websocket.ConnectionClosed) -> str:
    """Return how a connection ended, for an error."""
    reason = closed.reason
    if reason is None:
        return "The connection to the aggregator was closed."
    if reason.code == 1006:
        return "The connection to the aggregator broke off."
    said = f": {printable(reason.reason)}" if reason.reason else ""
    if reason.code in _BROKEN_RULES:
        # trio-websocket does not tell which side closed, the aggregator or we.
        return (
            "The connection to the aggregator was closed for a breach of the protocol,"
            f" code {reason.code}{said}."
        )
    return f"The aggregator closed the connection with code {reason.code}{said}."
