"""Moves messages from the outbox over one link, by the delivery rules (DELIVERY.md).

What may go out now is decided at once and without I/O, then handed to the session. The sender waits
in one place only, for the doorbell, which rings when something was put into the outbox and when an
answer came, or until something that has to wait is due.

Every message passes here: no event or sample is encoded or given a task, and as many as may go out
go in one step of this task. When they catch up, a sixth of the engine's time is spent here.
"""

import logging
import math
from enum import Enum

import trio
from attrs import define, field

from trio_runner._errors import LinkLost
from trio_runner._histogram import Durations
from trio_runner._outbox import STATE_TYPES, Entry, Outbox, is_too_big
from trio_runner._publish import Doorbell
from trio_runner._say_once import SayOnce
from trio_runner._window import Window
from trio_runner.net import Answered, Session
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import pack

logger = logging.getLogger(__name__)

PAUSE_MAX_S = 60
"""The longest pause (s) before a message that did not get through is tried again."""

PATIENCE_MAX = 12
"""How many times longer than usual the answer to such a message may take, at the most."""

SUSPECT_TRIES = 2
"""What was sent so often and is not delivered goes alone, so that it shows what is to blame."""

UNREADABLE = "deserialization failed"
"""What an aggregator says of a message of a kind, or with a field, that it does not know."""

STATE_REST = 4
"""How many times longer than a state occupied the line the next one of its kind has to wait."""


WITHHELD_S = 0.5
"""How soon to look again (s) when the outbox gives no message because of its disk."""


def _goes_alone(entry: Entry) -> bool:
    """Tell whether nothing else may be unanswered beside a message."""
    # What has failed goes alone too: a sample behind newer ones would not be stored.
    suspect = entry.failures > 0 or entry.tries >= SUSPECT_TRIES
    return entry.is_run_event or suspect


def pause_s(failures: int) -> float:
    """Return how long to wait (s) before a message that failed so often is tried again."""
    return min(2.0 ** min(failures - 1, 6), PAUSE_MAX_S) if failures else 0.0


def patience(failures: int) -> int:
    """Return how many times longer than usual to wait for the answer to such a message."""
    return min(1 << min(failures, 4), PATIENCE_MAX)


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


@define(eq=False)
class _State:
    """What this link knows of a kind of state message."""

    heard: str | None = None
    """The last that was answered, taken or refused: it is not sent again."""
    is_under_way: bool = False
    is_taken: bool = False
    is_known: bool = False
    """Whether one was taken."""
    is_unknown: bool = False
    """Whether none can be: the aggregator is of an older version."""
    failures: int = 0
    due_at: float = 0.0


@define(eq=False)
class Sender:
    """The one sender of a link."""

    _session: Session
    _outbox: Outbox
    _bell: Doorbell
    _answer_s: Durations = field(factory=Durations)
    """From the sending of a sample to its answer (s)."""
    _window: Window = field(factory=Window, init=False)
    _untold: list[type[em.EngineMessage]] = field(init=False)
    """What this link is told before anything else, as far as it has not been told yet."""
    _states: dict[type[em.EngineMessage], _State] = field(init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    _began: float = field(factory=trio.current_time, init=False)
    _look_again_at: float = field(default=math.inf, init=False)
    """When the first of what has to wait is due."""
    _unanswered: int = field(default=0, init=False)
    _samples: int = field(default=0, init=False)
    _notices: int = field(default=0, init=False)
    _states_under_way: int = field(default=0, init=False)
    _is_barred: bool = field(default=False, init=False)
    """Whether a message is unanswered that has to be so alone."""
    _is_idle: bool = field(default=False, init=False)
    """Whether nothing waits that an answer could let go: it then need not wake the sender."""

    def __attrs_post_init__(self) -> None:
        self._untold = [em.UodInfoMsg, em.MethodMsg, em.RunStartedMsg]
        self._states = {kind: _State() for kind in STATE_TYPES}

    @property
    def unanswered(self) -> int:
        """How many messages of this link wait for their answer."""
        return self._unanswered

    @property
    def bytes_sent(self) -> int:
        """How many bytes have left over this link."""
        return self._session.bytes_sent

    async def introduce(self) -> None:
        """Tell who we are: UodInfo, Method, and RunStarted of the run that is on.

        Without UodInfo an aggregator answers samples with Success and throws them away. One that
        was killed remembers no run and refuses what follows; to one that does remember, the
        repetition changes nothing. So both are told until they are taken.
        """
        while self._untold:
            kind = self._untold[0]
            if kind is em.RunStartedMsg:
                await self._repeat_run_started()
            else:
                await self._tell(kind)
            del self._untold[0]

    async def _tell(self, kind: type[em.EngineMessage]) -> None:
        state = self._states[kind]
        while True:
            self._send_state(kind)
            await self._all_answered()
            if state.is_taken or kind is not em.UodInfoMsg or self._outbox.state(kind) is None:
                return
            state.heard = None
            state.due_at = max(state.due_at, trio.current_time() + pause_s(state.failures))
            await trio.sleep_until(state.due_at)

    async def _repeat_run_started(self) -> None:
        failures = 0
        while (run_started := self._outbox.open_run) is not None:
            answers: list[m.MessageBase] = []
            self._send(
                run_started.sequence_number, run_started.body, answers.append, patience(failures)
            )
            await self._all_answered()
            if not answers or classify(answers[0]) is Verdict.DELIVERED:
                return  # no answer is judged that ends the link
            failures += 1
            self._say(
                logging.ERROR, "The aggregator did not take %s: %s", run_started, reason(answers[0])
            )
            await trio.sleep(pause_s(failures))

    async def drain(self) -> None:
        """Send what waits now; return when the aggregator has said that it has all of it.

        What is put in meanwhile is sent too, and not waited for: over a distance of more than the
        time between two samples something always is under way. If a stop has cut short the
        introduction, the rest of it is made first; if it has cut short the wait for an event's
        answer, that goes on. Where the unit could not be described, nothing is sent: it would be
        thrown away.
        """
        if self._untold:
            if self._outbox.state(em.UodInfoMsg) is None:
                return
            await self._all_answered()
            await self.introduce()
        newest = self._outbox.next_number()
        while (oldest := self._outbox.oldest_number()) is not None and oldest < newest:
            await self._step()

    async def steady(self) -> None:
        """Send what comes, as it comes; do not return."""
        while True:
            await self._step(with_states=True)

    async def _step(self, *, with_states: bool = False) -> None:
        """Send what may go out, or wait for what lets it go or brings some."""
        self._look_again_at = math.inf
        # A state must not overtake the beginning or the end of the run that it tells of.
        if with_states and not self._outbox.has_run_events:
            for kind in tuple(self._states):
                self._send_state(kind)
        if self._send_aside() or self._send_head():
            return
        self._is_idle = with_states and self._has_nothing_to_wait_for()
        if self._look_again_at == math.inf:  # nearly always, and a scope costs as much as the wait
            await self._bell.wait()
        else:
            with trio.move_on_at(self._look_again_at):
                await self._bell.wait()

    def _has_nothing_to_wait_for(self) -> bool:
        outbox = self._outbox
        waits = outbox.has_line or outbox.has_aside or outbox.has_run_events
        return not waits and not self._states_under_way

    async def _all_answered(self) -> None:
        self._is_idle = False
        while self._unanswered:
            await self._bell.wait()

    # What goes out when

    def _send_head(self) -> bool:
        """Send the next message if it may go out; return whether to look again at once."""
        head = self._outbox.head()
        if head is None and self._outbox.has_line:  # the disk comes first, and may hang
            self._look_again_at = min(self._look_again_at, trio.current_time() + WITHHELD_S)
        if head is None or self._is_barred:
            return False
        if head.is_notice and (self._notices or self._outbox.has_aside):
            self._outbox.let_pass()
            return True
        alone = _goes_alone(head)
        if not self._may_send(head, alone=alone) or self._has_to_wait(self._due_at(head)):
            return False
        if not self._outbox.make_ready(head):
            return True  # the disk comes first, and there may be another head
        self._send_entry(self._outbox.take(), alone=alone)
        return True

    def _may_send(self, head: Entry, *, alone: bool) -> bool:
        """Tell whether the next message may go out beside those that are unanswered."""
        if head.is_run_event:
            return not self._unanswered and not self._outbox.is_held_up
        if alone:
            return not self._samples and not self._notices
        return head.is_notice or self._samples < self._window.limit

    def _send_aside(self) -> bool:
        """Send a notice that has let others pass, if it may go out; return whether it did."""
        if self._is_barred or self._notices or not self._outbox.has_aside:
            return False
        entry = self._outbox.next_aside()
        if (
            not entry.is_queued
            or self._has_to_wait(self._due_at(entry))
            or self._is_the_heads_turn()
            or not self._outbox.make_ready(entry)
        ):
            return False
        self._send_entry(self._outbox.take_aside(entry), alone=False)
        return True

    def _is_the_heads_turn(self) -> bool:
        """Tell whether the head waits for nothing but to be alone: notices must not prevent it."""
        head = self._outbox.head()
        if head is None or head.is_notice or not _goes_alone(head):
            return False
        is_held_up = head.is_run_event and self._outbox.is_held_up
        return not is_held_up and not self._has_to_wait(self._due_at(head))

    def _due_at(self, entry: Entry) -> float:
        """Return when a message may go out; a link lives for a while before what may end it."""
        if entry is not self._outbox.cut or entry.failures < 2:  # once is no sign
            return entry.due_at
        return max(entry.due_at, self._began + pause_s(entry.failures))

    def _has_to_wait(self, due_at: float) -> bool:
        if not due_at or due_at <= trio.current_time():
            return False
        self._look_again_at = min(self._look_again_at, due_at)
        return True

    # Messages out, answers in

    def _send_entry(self, entry: Entry, *, alone: bool) -> None:
        if entry.is_too_big:
            self._outbox.set_aside(entry, "it is over the aggregator's limit of 16 MiB")
            return
        is_sample = not entry.is_event
        self._samples += is_sample
        self._notices += entry.is_notice
        self._is_barred = alone
        sent, samples = trio.current_time(), self._samples

        def judge(answer: m.MessageBase) -> None:
            self._samples -= is_sample
            self._notices -= entry.is_notice
            self._is_barred = self._is_barred and not alone
            if is_sample:
                now = trio.current_time()
                self._window.answered(now, now - sent, samples)
                self._answer_s.note(now - sent)
            self._judge(entry, answer)

        self._send(entry.sequence_number, entry.body, judge, patience(entry.failures))

    def _judge(self, entry: Entry, answer: m.MessageBase) -> None:
        verdict = classify(answer)
        if verdict is Verdict.DELIVERED:
            self._outbox.delivered(entry)
        elif verdict is Verdict.TRANSIENT:
            self._say(
                logging.WARNING,
                "The aggregator failed to handle %s, it is tried again: %s",
                entry,
                reason(answer),
                about=reason(answer),
            )
            due_at = trio.current_time() + pause_s(entry.failures + 1)
            self._outbox.failed(entry, reason(answer), due_at)
        else:
            self._outbox.refused(entry, reason(answer))

    def _send_state(self, kind: type[em.EngineMessage]) -> None:
        """Send the latest message of a type, if this link has not heard it already."""
        body, state = self._outbox.state(kind), self._states[kind]
        if body is None or body == state.heard or state.is_under_way or state.is_unknown:
            return
        if self._states_under_way >= self._window.limit or self._has_to_wait(state.due_at):
            return
        if is_too_big(body):
            state.heard = body
            state.failures += 1
            text = "%s is over the aggregator's limit of 16 MiB, it is left out"
            self._say(logging.ERROR, text, kind.__name__)
            return
        sent = trio.current_time()

        def note(answer: m.MessageBase) -> None:
            verdict, now = classify(answer), trio.current_time()
            state.is_under_way = False
            self._states_under_way -= 1
            state.is_taken = verdict is Verdict.DELIVERED
            if state.is_taken:
                state.failures, state.is_known = 0, True
            else:
                state.failures += 1
                text = "The aggregator did not take %s: %s"
                self._say(logging.ERROR, text, kind.__name__, reason(answer))
                if kind is not em.UodInfoMsg and not state.is_known:  # without it nothing is taken
                    state.is_unknown = UNREADABLE in str(answer)
            if verdict is Verdict.TRANSIENT:
                state.due_at = now + pause_s(state.failures)
            else:  # what was refused is sent again when it has changed
                state.heard = body
                state.due_at = now + self._rest_s(now - sent)

        self._states[kind] = self._states.pop(kind)  # the others come first next time
        state.is_under_way = True
        self._states_under_way += 1
        self._send(self._outbox.next_number(), pack(body), note, patience(state.failures))

    def _rest_s(self, took_s: float) -> float:
        """Return how long to wait (s) with the next state of a kind, so that samples have room."""
        return min(STATE_REST * max(took_s - self._window.distance_s, 0), PAUSE_MAX_S)

    def _send(self, sequence_number: int, packed: bytes, judge: Answered, patience: int) -> None:
        self._unanswered += 1

        def answered(answer: m.MessageBase) -> None:
            if classify(answer) is Verdict.NOT_REGISTERED:
                # It stays unanswered, and the bell still: nothing shall follow on this link.
                raise LinkLost("The aggregator does not know this engine: registering anew.")
            self._unanswered -= 1
            judge(answer)
            if not self._is_idle or self._outbox.has_line or self._outbox.has_aside:
                self._bell.ring()

        self._session.send(sequence_number, packed, answered, patience=patience)
