"""The oracle watches a simulated runner from outside and says when it breaks a promise.

It knows what the engine reported, what each link carried and how it was answered, what the
aggregator received, and the runner's state. All of that comes from public interfaces, and the rules
come from the design, not from the code. It checks at every message and once a second. Its ledger
checks what becomes of each message.
"""

import json
import math
from collections.abc import Generator
from contextlib import contextmanager

import trio
from attrs import define, field

from trio_runner._outbox import OutboxStatistics
from trio_runner.protocol import MessageBase, SuccessMessage
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._arrivals import Arrivals
from trio_runner.simulation.trials._error_logs import ErrorLogs
from trio_runner.simulation.trials._held_up import HeldUp
from trio_runner.simulation.trials._ledger import Death, Ledger
from trio_runner.simulation.trials._sampling import Sampling
from trio_runner.simulation.trials._share import StatesShare
from trio_runner.simulation.trials._state_changes import StateChanges
from trio_runner.simulation.trials._states_told import StatesTold
from trio_runner.simulation.trials._told import Told
from trio_runner.simulation.trials._tries import PASSED_AFTER, TOLD, Tries, keys_or_kind
from trio_runner.simulation.trials._watched_link import (
    RUN_EVENTS,
    SAMPLE,
    Key,
    Sent,
    WatchedLink,
    is_notice,
    keys_of,
    keys_of_body,
)


@define(eq=False)
class Oracle(Ledger):
    """The rules for messages, links and times, in addition to those of the ledger."""

    steady_s: float
    """The time between two samples while there is a link (s)."""
    state: StateChanges = field(init=False)
    sampling: Sampling = field(init=False)
    tries: Tries = field(init=False)
    arrivals: Arrivals = field(init=False)
    states_told: StatesTold = field(init=False)
    states_share: StatesShare = field(init=False)
    error_logs: ErrorLogs = field(init=False)
    held_up: HeldUp = field(init=False)
    told: Told = field(init=False)
    resent: int = field(default=0, init=False)
    """How often a message arrived again."""
    passed: set[Key] = field(factory=set, init=False)
    """Samples whose handling failed while newer ones, which are stored first, were unanswered."""
    _knows_run: bool = field(default=True, init=False)
    """Whether the beginning of the run that is being sent was taken, or there is none."""
    _run_event_done_at: float = field(default=0.0, init=False)
    _failed_at: float = field(default=-math.inf, init=False)
    """When the aggregator last did not take an event or a sample (s)."""
    _link: WatchedLink | None = field(default=None, init=False)
    fails_to_make: str = field(default="", init=False)
    """Which messages the engine cannot make now, if any."""
    is_stopping: bool = field(default=False, init=False)
    """Whether the process is being stopped: it may wait a second for handlers, and not sample."""
    _links: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.state = StateChanges(self.expect)
        self.sampling = Sampling(self.expect, self.steady_s, self.identities)
        self.tries = Tries(self.expect, self._note_set_aside)
        self.arrivals = Arrivals(self.expect, self.made)
        self.states_told = StatesTold(self.expect, self.tries.is_in_trouble, self.steady_s)
        self.states_share = StatesShare(self.expect)
        self.error_logs = ErrorLogs(self.expect, self.made, self._made_at, self._place)
        self.held_up = HeldUp(self.expect)
        self.told = Told(self.expect)

    # What the engine makes

    def make(self, message: em.EngineMessage) -> None:
        """Note an event or a sample that the engine hands over."""
        for key in keys_of(message):
            self._add(key)
            if key[0] == "errors":
                self.told.log(key[1])
            if key[0] == SAMPLE:
                self._check_gap()
                self.sampling.make(key)

    @contextmanager
    def failing(self, what: str) -> Generator[None, None, None]:
        """Mark a time in which the engine cannot make some of its messages."""
        self.fails_to_make = what
        try:
            yield
        finally:
            self.fails_to_make = ""
            self.sampling.begin_anew()
            self.states_told.disagreed_at = trio.current_time()

    # Processes

    def begin_life(self, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has started, and what is in its outbox."""
        super().begin_life(durable=durable, outbox=outbox)
        self._link, self.is_stopping = None, False
        self.state.begin_life()
        self.sampling.begin_life(does_any_wait=outbox.waiting > 0)
        self.tries.begin_life()
        self.told = Told(self.expect)
        self._knows_run = True

    def end_life(self, how: Death, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process and its link have ended, and what may be lost with the process."""
        super().end_life(how, durable=durable, outbox=outbox)
        if durable and (outbox.degraded is not None or self.has_slow_disk):
            self.identities.may_go_back()
        if self._link is not None:
            self._link.is_open = False

    # Links

    def open_link(self) -> WatchedLink:
        """Note that a link is ready."""
        self.expect(self._link is None or not self._link.is_open, "two links at once")
        self.tries.open_link()
        self._links += 1
        self._link = WatchedLink(self._links, self.expect, self.tries.is_in_trouble("MethodMsg"))
        if self.tries.is_run_given_up():
            self._knows_run, self.taint = False, True
        self.trace.note("link", self._links)
        return self._link

    def close_link(self, link: WatchedLink, why: str = "") -> None:
        """Note that a link has ended; `why` is the text of the error that ended it, if any."""
        self.tries.close_link(link, why)
        link.mark_end(why)
        if link.has_state_unanswered:
            self.states_told.fail()
        link.is_open = False
        self.error_logs.close_link()
        self.sampling.close_link()
        self.trace.note("link", link.number, "ended")

    def _note_set_aside(self, sent: Sent) -> None:
        self._set_aside.update(dict.fromkeys(sent.keys, trio.current_time()))
        self._set_aside_now += 1
        is_told_again = sent.kind == "RunStartedMsg" and sent.keys[0] in self.handled
        self._only_told_again += is_told_again
        # Telling of an error log in another one would never end.
        if sent.kind != "ErrorLogMsg" and not is_told_again:
            self.told.await_word("messages are set aside")
        sometimes("set aside")
        self.taint = self.taint or sent.is_run_event
        if sent.is_run_event:
            self._knows_run = sent.kind == "RunStoppedMsg"

    @property
    def changed_at(self) -> float:
        """When the state or the run last changed, or a message was last not taken (s)."""
        told_at = max(self._run_event_done_at, self._failed_at, self.states_told.failed_at)
        return max(self.state.since, self._engine_run_since, told_at)

    def _note_thinned(self) -> None:
        self.told.await_word("messages are thinned")

    def is_unanswered(self, key: Key) -> bool:
        """Tell whether a message is unanswered on the present link."""
        link = self._link
        return link is not None and link.is_open and link.is_unanswered(key)

    @property
    def catching_up_s(self) -> float:
        """The time from the link's opening to the last change of state (s), at least 0."""
        return max(0.0, self.state.since - self._link.opened_at) if self._link else 0.0

    @property
    def bytes_under_way(self) -> int:
        """The size of all unanswered messages (bytes, not compressed)."""
        link = self._link
        return link.bytes_unanswered if link is not None and link.is_open else 0

    def send(self, link: WatchedLink, number: int, body: str) -> None:
        """Check a message that goes out, and note it."""
        kind = body.rsplit('"_type":"', 1)[1].partition('"')[0]
        keys = keys_of_body(kind, body)
        self.trace.note("send", number, kind, about=keys)
        self.expect(
            link.is_open and link is self._link,
            f"{kind} {number} was sent on a link that had ended",
        )
        self.identities.check_number(number, keys[0] if keys else None)
        introduced = link.messages >= 2 - link.may_lack_method
        introduces = kind == "RunStartedMsg" and introduced and not link.last_number
        self.expect(
            len(body) <= MESSAGE_BYTES_MAX, f"{kind} {number} was sent with more than 16 MiB"
        )
        if kind == "ErrorLogMsg" and keys[-1] not in self.identities:
            self.error_logs.check_whole(keys[-1], self._life_began, link.longest_s)
            left_out = self.error_logs.left_out(keys, body)
            self._set_aside.update(dict.fromkeys(left_out, trio.current_time()))
        was_sent = any(key in self.identities for key in keys) or self.states_told.was_sent(kind)
        self.sampling.send()
        for key in keys:
            self._check_order(link, number, key, introduces=introduces)
        if keys:
            self._check_same(keys[0], body)
        else:
            self._send_state(kind, body)
        self._mark(link, kind, keys, introduces=introduces)
        repeats = introduces and keys[0] in self._answered
        sent = Sent(keys, kind, body, repeats, was_sent=was_sent)
        name = keys_or_kind(sent)[0]
        sent.is_suspect = self.tries.is_suspect(name)
        sent.is_retried = is_notice(name) and self.tries.has_failed(name)
        if name[0] == TOLD:
            self.tries.tell(kind, link)
        link.send(number, sent)

    def _mark(
        self, link: WatchedLink, kind: str, keys: tuple[Key, ...], *, introduces: bool
    ) -> None:
        sometimes("run repeated", introduces)
        sometimes("tried again", any(map(self.tries.has_failed, keys)))
        sometimes("logs merged", len(keys) > 1)
        if kind == "TagsUpdatedMsg":
            sometimes("goes alone", self.tries.is_suspect(keys[0]))
            link.mark_sample(others_wait=self.sampling.does_newest_wait)

    def _check_same(self, key: Key, body: str) -> None:
        if key in self.tries.smaller:
            sometimes("goes smaller")
            self.tries.smaller.discard(key)
            self.identities.may_change(key)
        self.identities.check_body(key, body)

    def _send_state(self, kind: str, body: str) -> None:
        self.states_told.send(kind, body)
        if kind == "UodInfoMsg":
            self.sampling.set_interval(json.loads(body)["data_log_interval_seconds"])

    def _check_order(self, link: WatchedLink, number: int, key: Key, *, introduces: bool) -> None:
        self.identities.check_key(key, number)
        notice = is_notice(key)
        if key in self._place:
            # What another process made, and the end of its run, are in the outbox's order.
            again = self.tries.has_failed(key) or (notice and self.tries.in_vain(key) > 0)
            last = link.last_notice if notice else link.last_number
            self.expect(
                introduces or again or number >= last, f"{key} {number} was sent after {last}"
            )
            self.expect(
                introduces
                or self.state.now != "Reconnected"
                or self._made_at[key] > link.opened_at
                or self.tries.in_vain(key) >= PASSED_AFTER,
                f"{key} had waited, but was sent after all that had waited was said to be",
            )
            if not introduces:
                self._check_sides(key, is_notice=notice)
        if not introduces:
            self.tries.send(key, link)
            self.expect(
                key not in self._answered, f"{key} was sent again, although it was answered"
            )
            self.expect(
                key not in self._set_aside, f"{key} was sent again, although it was set aside"
            )
            if notice and not self.tries.in_vain(key):
                link.last_notice = number
            elif not notice and not self.tries.has_failed(key):
                link.last_number = number

    def _check_sides(self, key: Key, *, is_notice: bool) -> None:
        """Check that notices and run events do not pass each other."""
        if not is_notice and key[0] == SAMPLE:
            return
        place = self._place[key]
        for before in self.made[self._settled : place]:
            if before[0] == SAMPLE or self._place.get(before, place) >= place:
                continue
            if self._is_done(before) or before in self.excused or before in self.handled:
                continue
            is_run_event = before[0] in RUN_EVENTS
            if is_run_event == is_notice and self.tries.in_vain(before) < PASSED_AFTER:
                self.expect(False, f"{key} was sent, but {before} before it is not delivered")

    def answer(self, link: WatchedLink, number: int, answer: MessageBase) -> None:
        """Note the answer to a message, and what follows from it."""
        self.trace.note("answer", number, type(answer).__name__)
        if "No engine registered" in str(answer):
            sometimes("not registered")
            return  # this ends the link, as if the message had no answer
        is_taken = isinstance(answer, SuccessMessage)
        sent = link.answer(number, is_taken=is_taken)
        if sent is not None and keys_or_kind(sent)[0][0] == TOLD:
            self.tries.told(sent.kind, is_taken=is_taken)
        if sent is not None and not sent.keys:
            self._note_state_answered(sent, str(answer), is_taken=is_taken)
        if sent is None or not sent.keys:
            return
        now = trio.current_time()
        if sent.is_run_event:
            self._run_event_done_at = now
        sometimes("taken", is_taken)
        sometimes("repeated run not taken", sent.repeats and not is_taken)
        if sent.repeats:
            self.taint = self.taint or not is_taken
            refused = not is_taken and "Handler raised exception" not in str(answer)
            if refused or self.tries.is_run_given_up():
                link.go_on()
                self._knows_run = False
            elif is_taken:
                self._knows_run = True
        elif is_taken and sent.kind == "TagsUpdatedMsg" and not self._knows_run:
            self._set_aside.update(dict.fromkeys(sent.keys, now))  # it may be thrown away
            self._set_aside_now += 1
        elif is_taken:
            self._answered.update(dict.fromkeys(sent.keys, now))
            if sent.is_run_event:
                self._knows_run = True
            if sent.kind == "RunStartedMsg":
                self.tries.told(sent.kind, is_taken=True)  # another run begins anew
        else:
            self._note_failure(sent, str(answer))

    def _note_state_answered(self, sent: Sent, said: str, *, is_taken: bool) -> None:
        now = trio.current_time()
        self.states_share.answer(sent.kind, now - sent.at)
        if not is_taken:
            self.states_told.fail()
            sometimes("unit not taken", sent.kind == "UodInfoMsg")
            sometimes(f"state {_answer_class(said)}")

    def _note_failure(self, sent: Sent, said: str) -> None:
        link, self._failed_at = self._link, trio.current_time()
        if sent.kind == "TagsUpdatedMsg" and link is not None and link.has_sample_unanswered:
            self.passed.update(sent.keys)
        sometimes(_answer_class(said))
        self.tries.fail(sent, is_refusal=_answer_class(said) == "refused")

    # The aggregator's side

    def receive(self, message: em.EngineMessage, connection: int, refused: str | None) -> None:
        """Check a message that the aggregator has received, and what became of it.

        `refused` says why the message had no effect, and is None if it had one.
        """
        keys, kind = keys_of(message), type(message).__name__
        self.trace.note("receive", message.sequence_number, kind, refused, about=keys)
        tainted = self.taint
        by_fault = refused is not None and refused.startswith(("answered", "sent before"))
        for key in keys:
            self._check_arrival(key, connection)
            if not by_fault:
                self.handled.add(key)
                self._follow_run(key, message.engine_id)
        if refused is None or by_fault or tainted or self.taint:
            return
        sometimes("run known", "active already" in refused)
        harmless = isinstance(message, em.RunStartedMsg) and "active already" in refused
        if isinstance(message, em.RunStoppedMsg) and self.received[keys[0]] > 1:
            # Nothing has begun the run once more, if its beginning was set aside.
            harmless = ("RunStartedMsg", message.run_id) in self._set_aside
        self.expect(harmless, f"the aggregator refused {type(message).__name__}: {refused}")

    def check_line(self, number: int, way_s: float, handling_s: float) -> None:
        """Check that a message that is handled now has not queued at the aggregator for long.

        `way_s` is the longest time that it may have been on its way, and `handling_s` is how long
        the aggregator takes to handle a message (both s).
        """
        link = self._link
        sent_at = link.sent_at(number) if link is not None else None
        if sent_at is None:
            return
        in_line_s = trio.current_time() - sent_at - way_s - handling_s
        self.arrivals.check_line(in_line_s, handling_s)

    def _check_arrival(self, key: Key, connection: int) -> None:
        again = self.received.get(key, 0)
        self.received[key] = again + 1
        self.resent += again > 0
        sometimes("arrived again", again)
        place = self._place.get(key)
        self.expect(place is not None, f"{key} was never made")
        if not again and place is not None:
            # A notice for which a link has ended has a pause, in which others pass it.
            if not (is_notice(key) and self.tries.in_vain(key)):
                self.arrivals.check_order(key, place, connection)
            self._newest = max(self._newest, place)

    # What is always true

    def change_state(self, before: str, after: str) -> None:
        """Check that a change of state is legal, and note it."""
        self.trace.note("state", before, "->", after)
        if self.state.change(before, after):
            self.told.await_word("the aggregator was away")

    def check_second(self, outbox: OutboxStatistics, bytes_max: int, largest: int) -> None:
        """Check what must always hold; to be called once a second while a process lives.

        `bytes_max` is the outbox's bound, and `largest` the size of the largest message (bytes).
        """
        now = trio.current_time()
        self.check_books(outbox)
        if outbox.degraded is None:
            self._healthy_disk_at = now
        else:
            sometimes("disk slow" if "not written" in outbox.degraded else "disk full")
        self._note_room(outbox)
        if outbox.bytes_waiting > bytes_max:
            # Events, the last samples and unanswered messages cannot be thinned.
            sometimes("over its bound")
            over = outbox.bytes_waiting - bytes_max
            allowed = (self._not_to_be_thinned() + 2) * largest
            self.expect(over <= allowed, f"the outbox is {over} bytes over its bound")
        self._check_gap()
        self.state.check_second()
        self._check_told(outbox)
        if not self.state.is_ending:
            self.told.check_second()
        if self._link is not None and self._link.is_open:
            self._link.check_waiting()
            self.held_up.check_second(self._what_may_go(self._link), self._link.longest_s)

    def _what_may_go(self, link: WatchedLink) -> Key | None:
        """Return the run event that nothing keeps from going out, or None.

        Nothing is before it but notices that have failed too often to hold it up.
        """
        is_steady = self.state.is_steady and not link.is_silent and not self.has_slow_disk
        if not is_steady or not self.tries.may_pass_any():
            return None
        for key in self.made[self._settled :]:
            if key in self._answered or key in self._set_aside:
                continue
            if key in self.excused:
                return None  # it is not known whether it waits
            if key[0] in RUN_EVENTS and not (link.is_unanswered(key) or self.tries.in_vain(key)):
                return key
            if not (is_notice(key) and self.tries.in_vain(key) >= PASSED_AFTER):
                return None
        return None

    def _check_gap(self) -> None:
        if not (self.state.is_ending or self.is_stopping or self.fails_to_make == "tags"):
            self.sampling.check(self._link)

    def _check_told(self, outbox: OutboxStatistics) -> None:
        """Check that a steady link has all state messages, and shows whether a run is on."""
        if outbox.waiting == 0:
            self._settled = len(self.made)
        link = self._link
        is_steady = link is not None and link.is_open and self.state.is_steady
        has_waiting = self.may_a_run_event_wait() or self.fails_to_make == "control state"
        if link is not None and is_steady and not has_waiting:
            since = max(self.state.since, self._engine_run_since, self._run_event_done_at)
            self.states_told.check(link, self._engine_run, since)


def _answer_class(said: str) -> str:
    """Return whether an answer that is not Success means `failed` or `refused`."""
    return "failed" if "Handler raised exception" in said else "refused"
