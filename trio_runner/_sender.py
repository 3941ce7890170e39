"""Moves messages from the outbox over one link, by the delivery rules.

What may go out now is decided at once and without I/O (`_may_send`), then handed to the session.
The sender waits in one place only, for the doorbell, which rings when something was put into the
outbox and when an answer came.

Every message passes here: no event or sample is encoded or given a task, and as many as may go out
go in one step of this task. When they catch up, a sixth of the engine's time is spent here.
"""

import logging
from enum import Enum

import trio
from attrs import define, field

from trio_runner._errors import LinkLost
from trio_runner._outbox import STATE_TYPES, Entry, Outbox, is_too_big
from trio_runner._publish import Doorbell
from trio_runner._window import Window
from trio_runner.net import Answered, Session
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import pack

logger = logging.getLogger(__name__)

TRIES_MAX = 3
"""How often a message that the aggregator fails to handle is sent before it is set aside."""

UNREADABLE = "deserialization failed"
"""What an aggregator says of a message of a kind, or with a field, that it does not know."""

RETRY_S = 1
"""How long to wait before sending it again (s)."""


class Verdict(Enum):
    """What an answer says of the message that it answers."""

    DELIVERED = "the aggregator has it"
    NOT_REGISTERED = "the aggregator does not know this engine: register anew"
    TRANSIENT = "the aggregator failed, another try may succeed"
    POISON = "the aggregator will never take it"


def classify(answer: m.MessageBase) -> Verdict:
    """Return what an answer of the aggregator's says."""
    if isinstance(answer, m.SuccessMessage):
        return Verdict.DELIVERED
    said = f"{getattr(answer, 'protocol_msg', '')} {getattr(answer, 'message', '')}"
    if "No engine registered" in said:
        return Verdict.NOT_REGISTERED
    if "Handler raised exception" in said:
        return Verdict.TRANSIENT
    return Verdict.POISON


@define(eq=False)
class Sender:
    """The one sender of a link."""

    _session: Session
    _outbox: Outbox
    _bell: Doorbell
    _window: Window = field(factory=Window, init=False)
    _unanswered: int = field(default=0, init=False)
    _untold: list[type[em.EngineMessage]] = field(init=False)
    """What this link is told before anything else, as far as it has not been told yet."""
    _pause_until: float = field(default=0.0, init=False)
    _answered_states: dict[type[em.EngineMessage], str] = field(factory=dict, init=False)
    _taken_states: set[type[em.EngineMessage]] = field(factory=set, init=False)
    _unknown_states: set[type[em.EngineMessage]] = field(factory=set, init=False)
    """What the aggregator cannot read: one of an older version."""
    _states_under_way: set[type[em.EngineMessage]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._untold = [em.UodInfoMsg, em.MethodMsg, em.RunStartedMsg]

    @property
    def unanswered(self) -> int:
        """How many messages of this link wait for their answer."""
        return self._unanswered

    async def introduce(self) -> None:
        """Tell who we are: UodInfo, Method, and RunStarted of the run that is on.

        An aggregator that was killed remembers no run and would refuse what follows; to one that
        does remember, the repetition changes nothing.
        """
        while self._untold:
            kind = self._untold[0]
            if kind is not em.RunStartedMsg:
                self._send_state(kind)
                await self._all_answered()
            elif self._outbox.open_run is not None:
                await self._repeat(self._outbox.open_run)
            del self._untold[0]

    async def _repeat(self, run_started: Entry) -> None:
        """Send RunStarted of the open run; without it all that follows would be refused."""
        for _ in range(TRIES_MAX):
            answers: list[m.MessageBase] = []
            self._send(run_started.sequence_number, run_started.body, answers.append)
            await self._all_answered()
            if not answers or classify(answers[0]) is not Verdict.TRANSIENT:
                return  # no answer is judged that ends the link
            await trio.sleep(RETRY_S)

    async def drain(self) -> None:
        """Send what waits now; return when the aggregator has said that it has all of it.

        What is put in meanwhile is sent too, and not waited for: over a distance of more than the
        time between two samples something always is under way. If a stop has cut short the
        introduction, the rest of it is made first; if it has cut short the wait for an event's
        answer, that goes on.
        """
        await self.introduce()
        if self._outbox.has_events:
            await self._all_answered()
        newest = self._outbox.next_number()
        while (oldest := self._outbox.oldest_number()) is not None and oldest < newest:
            await self._step()

    async def steady(self) -> None:
        """Send what comes, as it comes; do not return."""
        while True:
            # A state must not overtake the beginning or the end of the run that it tells of.
            if not self._outbox.has_events:
                for kind in STATE_TYPES:
                    self._send_state(kind)
            await self._step()

    async def _step(self) -> None:
        """Send the next message, or wait for what lets it go or brings one."""
        head = self._outbox.head()
        if head is None or not self._may_send(head):
            await self._bell.wait()
        elif self._pause_until > trio.current_time():
            await trio.sleep_until(self._pause_until)
        else:
            self._send_entry(self._outbox.take())
            if head.is_event:
                await self._all_answered()  # the barrier: nothing follows before that

    def _may_send(self, head: Entry) -> bool:
        """Tell whether the next message may go out beside those that are unanswered."""
        if not self._unanswered:
            return True
        samples = self._unanswered - len(self._states_under_way)  # states never crowd them out
        return not head.is_event and samples < self._window.limit

    async def _all_answered(self) -> None:
        while self._unanswered:
            await self._bell.wait()

    # Messages out, answers in

    def _send_entry(self, entry: Entry) -> None:
        if entry.is_too_big:
            self._outbox.set_aside(entry, "it is over the aggregator's limit of 16 MiB")
            return
        sent, unanswered = trio.current_time(), self._unanswered + 1

        def judge(answer: m.MessageBase) -> None:
            if not entry.is_event:
                self._window.answered(trio.current_time() - sent, unanswered)
            self._judge(entry, answer)

        self._send(entry.sequence_number, entry.body, judge)

    def _judge(self, entry: Entry, answer: m.MessageBase) -> None:
        verdict = classify(answer)
        if verdict is Verdict.DELIVERED:
            self._outbox.delivered(entry)
        elif verdict is Verdict.TRANSIENT and entry.failures + 1 < TRIES_MAX:
            entry.failures += 1
            self._outbox.retry(entry)
            self._pause_until = trio.current_time() + RETRY_S
        else:
            self._outbox.set_aside(entry, str(answer))

    def _send_state(self, kind: type[em.EngineMessage]) -> None:
        """Send the latest message of a type, if this link has not had it answered already."""
        body = self._outbox.state(kind)
        if body is None or body == self._answered_states.get(kind):
            return
        if kind in self._states_under_way or kind in self._unknown_states:
            return
        if is_too_big(body):
            self._answered_states[kind] = body
            logger.error(
                "%s is over the aggregator's limit of 16 MiB, it is left out", kind.__name__
            )
            return

        def note(answer: m.MessageBase) -> None:
            if classify(answer) is Verdict.DELIVERED:
                self._taken_states.add(kind)
            else:
                logger.error("The aggregator did not take %s: %s", kind.__name__, answer)
                if UNREADABLE in str(answer) and kind not in self._taken_states:
                    self._unknown_states.add(kind)
            # Refused or not, this link has heard it; it is sent again when it has changed.
            self._answered_states[kind] = body
            self._states_under_way.discard(kind)

        self._states_under_way.add(kind)
        self._send(self._outbox.next_number(), pack(body), note)

    def _send(self, sequence_number: int, packed: bytes, judge: Answered) -> None:
        self._unanswered += 1

        def answered(answer: m.MessageBase) -> None:
            if classify(answer) is Verdict.NOT_REGISTERED:
                # It stays unanswered, and the bell still: nothing shall follow on this link.
                raise LinkLost("The aggregator does not know this engine: registering anew.")
            self._unanswered -= 1
            self._bell.ring()
            judge(answer)

        self._session.send(sequence_number, packed, answered)
