"""Tell what an answer of the aggregator's says of the message that it answers."""

from enum import Enum

from trio_runner.protocol import messages as m

UNREADABLE = "deserialization failed"
"""What an aggregator answers to a message whose type, or one of whose fields, it does not know."""


class Verdict(Enum):
    """What an answer says of the message that it answers."""

    DELIVERED = "the aggregator has it"
    NOT_REGISTERED = "the aggregator does not know this engine: register anew"
    TRANSIENT = "the aggregator failed; another try may succeed"
    POISON = "the aggregator will never take it"


def classify(answer: m.MessageBase) -> Verdict:
    """Return what an answer of the aggregator's says."""
    if isinstance(answer, m.SuccessMessage):
        return Verdict.DELIVERED
    said = reason(answer)
    if "No engine registered" in said:
        return Verdict.NOT_REGISTERED
    if "Handler raised exception" in said:
        return Verdict.TRANSIENT
    return Verdict.POISON


def reason(answer: m.MessageBase) -> str:
    """Return what an answer says in words."""
    texts = (getattr(answer, name, None) for name in ("protocol_msg", "message"))
    return " ".join(text for text in texts if text) or type(answer).__name__
