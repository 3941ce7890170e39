"""A message that waits: its delivery class, its bytes, what it costs."""

from enum import Enum

from attrs import define, field

from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import unpack

OUTBOX_BYTES_MAX = 64 * 1024 * 1024
"""The bound of an outbox in bytes if no other is given: days of a usual unit."""

COMMIT_S = 0.5
"""How often an outbox that has a disk is to be committed (s)."""

ENTRY_BYTES = 400
"""What a waiting message costs in memory besides its body, rounded up from a measurement."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024 - 1024
"""The aggregator's server takes frames of 16 MiB. What a frame adds to a message is under 1 kB."""


SUSPECT_LINKS = 2
"""After this many links in a row that ended while a message was under way, it goes alone, which
shows whether it is to blame."""

SHRINKS_MAX = 1032
"""By what factor zlib can shrink a text at best (zlib's technical details)."""


class Delivery(Enum):
    """How a message is delivered."""

    RUN_EVENT = "never dropped; a barrier: nothing else is unanswered while it is sent"
    NOTICE = "never dropped; in order among themselves and with the run events; samples may pass"
    SAMPLE = "in order with the run events, several unanswered; thinned at the bound, counted"
    STATE = "the latest only, when it differs from what this link last took"


DELIVERY: dict[type[em.EngineMessage], Delivery] = {
    em.RunStartedMsg: Delivery.RUN_EVENT,
    em.RunStoppedMsg: Delivery.RUN_EVENT,
    em.WebPushNotificationMsg: Delivery.NOTICE,
    em.ErrorLogMsg: Delivery.NOTICE,
    em.TagsUpdatedMsg: Delivery.SAMPLE,
    em.UodInfoMsg: Delivery.STATE,
    em.MethodMsg: Delivery.STATE,
    em.ControlStateMsg: Delivery.STATE,
    em.MethodStateMsg: Delivery.STATE,
    em.QueuedRunLogMsg: Delivery.STATE,
    em.RunLogMsg: Delivery.STATE,
}
"""The delivery class of every message that a runner sends, with the states in sending order."""

RUN_EVENTS = em.RunStartedMsg, em.RunStoppedMsg
"""The events that change which tags the aggregator takes."""

STATE_TYPES = tuple(kind for kind, delivery in DELIVERY.items() if delivery is Delivery.STATE)


@define(eq=False)
class Entry:
    """A message in the line: its number, its type, and its body as `protocol.pack` gave it.

    `taken_at` is when it was put in (seconds since the epoch). `tries` is how often it was sent.
    `is_queued` is false until the event is as safe as the outbox makes it. `failures` is how often
    it was itself the reason that it did not get through. `links` is how many links in a row ended
    while it was under way. `due_at` is when it may be tried again (s on the sender's clock).
    """

    sequence_number: int
    kind: type[em.EngineMessage]
    body: bytes
    taken_at: float
    tries: int = 0
    is_queued: bool = True
    failures: int = 0
    links: int = 0
    due_at: float = 0.0
    _is_too_big: bool | None = field(default=None, init=False)
    """None until somebody asks: finding out about a large body takes unpacking it."""

    def replace(self, body: bytes) -> None:
        """Hold another body from now on."""
        self.body, self._is_too_big = body, None

    @property
    def text(self) -> str:
        """The body as `protocol.encode_body` gave it."""
        return unpack(self.body)

    @property
    def is_too_big(self) -> bool:
        """Whether the aggregator would refuse it for its size."""
        if self._is_too_big is None:
            may_be = len(self.body) * SHRINKS_MAX > MESSAGE_BYTES_MAX
            self._is_too_big = may_be and is_too_big(self.text)
        return self._is_too_big

    @property
    def is_event(self) -> bool:
        """Whether this is never dropped."""
        return self.kind is not em.TagsUpdatedMsg

    @property
    def is_run_event(self) -> bool:
        """Whether this is a barrier: the beginning or the end of a run."""
        return DELIVERY[self.kind] is Delivery.RUN_EVENT

    @property
    def is_notice(self) -> bool:
        """Whether samples may pass this."""
        return DELIVERY[self.kind] is Delivery.NOTICE

    @property
    def is_suspect(self) -> bool:
        """Whether this may be why links end."""
        return self.links >= SUSPECT_LINKS or (self.links > 0 and self.failures > 0)

    @property
    def goes_alone(self) -> bool:
        """Whether nothing else may be unanswered beside this.

        That holds for a sample that has failed, too: after newer ones it would not be stored.
        """
        has_failed = self.failures > 0 and not self.is_event
        return self.is_run_event or self.is_suspect or has_failed

    @property
    def size(self) -> int:
        """What this counts against the bound, in bytes."""
        return len(self.body) + ENTRY_BYTES

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.sequence_number}"


def is_too_big(body: str) -> bool:
    """Return whether the aggregator would refuse an encoded message for its size."""
    return len(body) * 4 > MESSAGE_BYTES_MAX and len(body.encode()) > MESSAGE_BYTES_MAX
