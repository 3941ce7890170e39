"""Move messages from the outbox over one link, by the delivery rules (DELIVERY.md).

The sender decides at once and without I/O what may go out, and hands it to the session. It waits
in one place only: for the doorbell, or until something that has to wait is due. The doorbell rings
when something was put into the outbox and when an answer has come.

Every message passes through here. No event or sample is encoded here or gets a task of its own, and
one step of this task sends all that may go out. While an engine catches up, a sixth of its time is
spent here.
"""

import logging
import math
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner._again import PAUSE_MAX_S, Again, Told, patience, pause_s
from trio_runner._answers import Verdict, classify, reason
from trio_runner._errors import LinkLost
from trio_runner._histogram import Durations
from trio_runner._news import News
from trio_runner._notices import Notices
from trio_runner._outbox import FAILURES_MAX, Entry, Outbox, is_too_big
from trio_runner._publish import Doorbell
from trio_runner._say_once import SayOnce
from trio_runner._window import Window
from trio_runner.net import Session
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import pack

logger = logging.getLogger(__name__)

SAMPLES_IN_A_ROW = 4
"""Where there is not room for all, a state or a notice has its turn after so many samples."""

WITHHELD_S = 0.5
"""How soon to look again (s) when the outbox holds a message back until its disk has it."""

_Judge = Callable[[Verdict, m.MessageBase], None]
"""What is to become of a message, given what its answer says and the answer itself."""


@define(eq=False)
class Sender:
    """The one sender of a link."""

    _session: Session
    _outbox: Outbox
    _bell: Doorbell
    _answer_s: Durations = field(factory=Durations)
    """From the sending of a sample to its answer (s)."""
    _again: Again = field()
    """What is known about telling each kind, over all links."""
    _window: Window = field(factory=Window, init=False)
    _untold: list[type[em.EngineMessage]] = field(init=False)
    """What is left to tell this link before anything else."""
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    _news: News = field(init=False)
    _notices: Notices = field(factory=Notices, init=False)
    _look_again_at: float = field(default=math.inf, init=False)
    """When the first message that has to wait is due."""
    _unanswered: int = field(default=0, init=False)
    _in_a_row: int = field(default=0, init=False)
    """How many messages of the line have gone out since a state or a notice did."""
    _is_barred: bool = field(default=False, init=False)
    """Whether an unanswered message must be the only one."""
    _is_idle: bool = field(default=False, init=False)
    """Whether no answer could let anything go out, so that it need not wake the sender."""

    def __attrs_post_init__(self) -> None:
        self._untold = [em.UodInfoMsg, em.MethodMsg, em.RunStartedMsg]
        self._news = News(self._outbox, self._again, self._say)
        cut = self._outbox.cut
        if cut is not None and cut.failures > 1:  # once is no sign
            # Let the link live for a while before sending it what may end it.
            cut.due_at = max(cut.due_at, trio.current_time() + pause_s(cut.failures))

    @_again.default
    def _nothing_known(self) -> Again:
        return Again(self._outbox.warnings)

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

        Without UodInfo an aggregator answers samples with Success and throws them away. An
        aggregator that was killed remembers no run and refuses what belongs to it; one that
        remembers ignores the repetition. So UodInfo and RunStarted are told until they are taken. A
        Method that has to wait, because links end by it, is told later.
        """
        while self._untold:
            kind = self._untold[0]
            if kind is em.RunStartedMsg:
                await self._repeat_run_started()
            else:
                await self._tell(kind)
            del self._untold[0]

    async def _tell(self, kind: type[em.EngineMessage]) -> None:
        while True:
            self._send_state(kind)
            await self._all_answered()
            if self._news.is_taken(kind) or kind is not em.UodInfoMsg:
                return
            await trio.sleep_until(self._news.tell_again(kind))

    async def _repeat_run_started(self) -> None:
        while (run_started := self._outbox.open_run) is not None:
            told = self._again.of_run(run_started)
            if told.links and told.failures >= FAILURES_MAX:  # each link would end by it
                self._outbox.go_on(knows_run=False)
                return
            if told.due_at > trio.current_time() and told.failures < FAILURES_MAX:
                await trio.sleep_until(told.due_at)
            if not await self._is_run_to_be_told_again(run_started, told):
                return

    async def _is_run_to_be_told_again(self, run_started: Entry, told: Told) -> bool:
        answers: list[tuple[Verdict, str]] = []

        def note(verdict: Verdict, answer: m.MessageBase) -> None:
            answers.append((verdict, reason(answer)))

        sent, told.under_way = trio.current_time(), str(run_started)
        self._send(run_started.sequence_number, run_started.body, note, told.patience)
        await self._all_answered()
        (verdict, why), now = answers[0], trio.current_time()
        if verdict is Verdict.DELIVERED:
            told.taken(is_late=now - sent > self._again.call_s)
            self._outbox.go_on(knows_run=True)
            return False
        told.failed()
        told.due_at = now + pause_s(told.failures)
        self._say(logging.ERROR, "The aggregator did not take %s: %s", run_started, why)
        if verdict is Verdict.TRANSIENT and told.failures < FAILURES_MAX:
            return True
        self._outbox.go_on(knows_run=False)
        return False

    async def drain(self) -> None:
        """Send what waits now; return when the aggregator has answered that it has all of it.

        Messages put in meanwhile are sent too, but not waited for: over a path longer than the time
        between two samples, something is always under way. If a stop has cut the introduction
        short, make the rest of it first. If it has cut short the wait for an event's answer, that
        wait goes on. If the unit could not be described, send nothing: it would be thrown away.
        """
        if self._untold:
            if self._outbox.state(em.UodInfoMsg) is None:
                return
            await self._all_answered()
            await self.introduce()
        await self.clear(self._outbox.next_number() - 1, with_states=False)

    async def clear(self, last: int, *, with_states: bool = True) -> None:
        """Send what comes, until all up to this number is delivered.

        With states it does what `steady` does. If the link ends first, this is cancelled.
        """
        while (oldest := self._outbox.oldest_number()) is not None and oldest <= last:
            await self._step(with_states=with_states)

    async def steady(self) -> None:
        """Send what comes, as it comes; do not return."""
        while True:
            await self._step(with_states=True)

    async def _step(self, *, with_states: bool = False) -> None:
        """Send what may go out, or wait for what lets it go or brings some."""
        self._look_again_at = math.inf
        # A state must not overtake the beginning or the end of the run that it tells of.
        if not self._is_barred and self._send_what_may(
            with_states=with_states and not self._outbox.has_run_events
        ):
            return
        self._is_idle = with_states and self._has_nothing_to_wait_for()
        if self._look_again_at == math.inf:  # nearly always; a scope costs as much as the wait
            await self._bell.wait()
        else:
            with trio.move_on_at(self._look_again_at):
                await self._bell.wait()

    def _has_nothing_to_wait_for(self) -> bool:
        outbox = self._outbox
        waits = outbox.has_line or outbox.has_aside or outbox.has_run_events
        return not waits and not self._news.under_way

    async def _all_answered(self) -> None:
        self._is_idle = False
        while self._unanswered:
            await self._bell.wait()

    # What goes out when

    def _send_what_may(self, *, with_states: bool) -> bool:
        """Send what may go out now; return whether to look again at once."""
        head = self._due_head()
        aside = self._due_aside()
        alone = next((e for e in (aside, head) if e is not None and e.goes_alone), None)
        if alone is not None:  # it goes out when all is answered; until then nothing does
            return not self._unanswered and self._send_entry(alone)
        suspect = self._suspect_state() if with_states else None
        if suspect is not None:
            if not self._unanswered:
                self._send_state(suspect, alone=True)
            return False
        if self._unanswered >= self._window.limit:
            return False
        waits = head is not None or aside is not None
        if waits and self._is_early():
            return False
        if head is not None and self._in_a_row < SAMPLES_IN_A_ROW:
            return self._send_entry(head)
        for kind in self._news.kinds if with_states else ():
            self._send_state(kind)
        if self._unanswered >= self._window.limit or (waits and self._is_early()):
            return False
        if aside is not None and self._may_send_notice(aside):
            return self._send_entry(aside)
        return head is not None and self._send_entry(head)

    def _is_early(self) -> bool:
        """Tell whether so much has just left that the next message has to wait."""
        return self._has_to_wait(self._window.due_at(trio.current_time()))

    def _may_send_notice(self, notice: Entry) -> bool:
        has_room = self._notices.have_room_for(notice)
        return has_room and not self._has_to_wait(self._notices.rest_until)

    def _due_head(self) -> Entry | None:
        """Let notices step aside; return the next message in line, None if it has to wait."""
        while (head := self._outbox.head()) is not None and head.is_notice:
            self._outbox.let_pass()
        if head is None and self._outbox.has_line:  # the disk comes first, and may hang
            self._look_again_at = min(self._look_again_at, trio.current_time() + WITHHELD_S)
        if head is None or (head.is_run_event and self._outbox.is_held_up):
            return None
        return None if self._has_to_wait(head.due_at) else head

    def _due_aside(self) -> Entry | None:
        """Return the next notice that stands aside, None if it has to wait."""
        if not self._outbox.has_aside:
            return None
        entry = self._outbox.next_aside()
        return None if not entry.is_queued or self._has_to_wait(entry.due_at) else entry

    def _suspect_state(self) -> type[em.EngineMessage] | None:
        """Return a kind of state that may be ending links and has something to tell, or None."""
        suspects = (kind for kind in self._news.kinds if self._again.of(kind).is_suspect)
        return next((kind for kind in suspects if self._due_state(kind) is not None), None)

    def _due_state(self, kind: type[em.EngineMessage]) -> str | None:
        """Return what there is to tell of a kind, or None if there is nothing or it has to wait."""
        body = self._news.of(kind)
        return None if body is None or self._has_to_wait(self._news.due_at(kind)) else body

    def _has_to_wait(self, due_at: float) -> bool:
        if not due_at or due_at <= trio.current_time():
            return False
        self._look_again_at = min(self._look_again_at, due_at)
        return True

    # Messages out, answers in

    def _send_entry(self, entry: Entry) -> bool:
        """Take a message out of the line, or from aside, and send it; return True.

        If other error logs have just been merged into this one, send it once the disk has it in
        that form.
        """
        if not self._outbox.make_ready(entry):
            return True  # there may be something else to send
        if entry.is_notice:
            self._outbox.take_aside(entry)
        else:
            self._outbox.take()
        if entry.is_too_big:
            self._outbox.set_aside(entry, "it is over the aggregator's limit of 16 MiB")
            return True
        self._in_a_row = 0 if entry.is_notice else self._in_a_row + 1
        self._is_barred = entry.goes_alone
        self._send(
            entry.sequence_number, entry.body, self._judge_of(entry), patience(entry.failures)
        )
        return True

    def _judge_of(self, entry: Entry) -> _Judge:
        """Note that a message is sent now; return what its answer will do."""
        is_sample = not entry.is_event
        is_retried = entry.is_notice and entry.failures > 0
        if entry.is_notice:
            self._notices.sent(is_retried=is_retried)
        sent, unanswered = trio.current_time(), self._unanswered + 1

        def judge(verdict: Verdict, answer: m.MessageBase) -> None:
            now = trio.current_time()
            if is_sample:
                self._window.answered(now, now - sent, unanswered)
                self._answer_s.note(now - sent)
            elif entry.is_notice:
                self._notices.answered(now, self._occupied_s(now - sent), is_retried=is_retried)
            self._judge(entry, verdict, answer)

        return judge

    def _judge(self, entry: Entry, verdict: Verdict, answer: m.MessageBase) -> None:
        if verdict is Verdict.DELIVERED:
            self._outbox.delivered(entry)
        elif verdict is Verdict.TRANSIENT:
            self._say(
                logging.WARNING,
                "The aggregator failed to handle %s, which is tried again: %s",
                entry,
                reason(answer),
                about=reason(answer),
            )
            due_at = trio.current_time() + pause_s(entry.failures + 1)
            self._outbox.failed(entry, reason(answer), due_at)
            self._bell.ring()  # an idle sender does not know yet when it is due
        else:
            self._outbox.refused(entry, reason(answer))

    def _send_state(self, kind: type[em.EngineMessage], *, alone: bool = False) -> None:
        """Send the latest message of a type, if this link has not heard it already."""
        body = self._due_state(kind)
        if body is None or self._unanswered >= self._window.limit or self._is_early():
            return
        if is_too_big(body):
            self._news.leave_out(kind, body)
            return
        sent = trio.current_time()

        def note(verdict: Verdict, answer: m.MessageBase) -> None:
            took_s = trio.current_time() - sent
            occupied_s = self._occupied_s(took_s)
            self._news.answered(kind, body, verdict, answer, took_s, occupied_s)

        self._in_a_row = 0
        self._is_barred = alone
        number, packed = self._outbox.next_number(), pack(body)
        self._send(number, packed, note, self._news.sent(kind, body))

    def _occupied_s(self, took_s: float) -> float:
        """Return how long (s) a message kept others waiting, judged by its answer time."""
        return min(max(took_s - self._window.distance_s, 0.0), PAUSE_MAX_S)

    def _send(self, sequence_number: int, packed: bytes, judge: _Judge, patience: int) -> None:
        self._unanswered += 1
        self._window.sent()

        def answered(answer: m.MessageBase) -> None:
            verdict = classify(answer)
            if verdict is Verdict.NOT_REGISTERED:
                # Leave it unanswered and the bell silent: nothing may follow on this link.
                raise LinkLost("The aggregator does not know this engine: registering anew.")
            self._unanswered -= 1
            self._window.freed()
            self._is_barred = False  # while it is set, the message that set it is the only one
            judge(verdict, answer)
            if not self._is_idle:
                self._bell.ring()

        self._session.send(sequence_number, packed, answered, patience=patience)
