"""The oracle watches a simulated runner from outside and says when it breaks a promise.

It knows what the engine reported, what each link carried and how it was answered, what the
aggregator received, and the runner's state. All of that comes from public interfaces, and the rules
come from the design, not from the code. It checks at every message and once a second. Its ledger
checks what becomes of each message.
"""

import json
import math

import trio
from attrs import define, field

from trio_runner._outbox import OutboxStatistics
from trio_runner.protocol import MessageBase, SuccessMessage
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._ledger import COMMIT_S, Death, Ledger
from trio_runner.simulation.trials._share import StatesShare
from trio_runner.simulation.trials._told import Told
from trio_runner.simulation.trials._tries import PASSED_AFTER, TOLD, Tries, keys_or_kind
from trio_runner.simulation.trials._watched_link import (
    ROUNDING_S,
    RUN_EVENTS,
    SAMPLE,
    Key,
    Sent,
    WatchedLink,
    is_notice,
    keys_of,
    keys_of_body,
)

EDGES = {
    "Started": "Connected Failed Stopped",
    "Connected": "Failed Stopped",
    "Failed": "Disconnected Stopped",
    "Disconnected": "Reconnecting Failed Stopped",
    "Reconnecting": "CatchingUp Failed Stopped",
    "CatchingUp": "Reconnected Failed Stopped",
    "Reconnected": "Failed Stopped",
    "Stopped": "ShutdownComplete",
    "ShutdownComplete": "",
}
"""The legal changes of state, by the design."""

OFFLINE_S = 5.0
"""The time between two samples without a link, unless the data-log interval is shorter (s)."""

TICKS_S = 0.3
"""How much later than that a sample may come, since the runner works in ticks (s)."""

WAIT_S = 10.0
"""The longest wait before a dial (s)."""

DIAL_S, DIAL_IN_LINE_S = 10.0, 40.0
"""The longest dial, and the longest after one that was accepted but not let in in time (s)."""

RETRY_WAIT_S = 1.0
"""How long nothing is sent after a failure, before the message is sent again (s)."""

WORK_S = 0.25
"""How much work from us may queue at the aggregator (s)."""

STATES = 6
"""How many kinds of state messages there are."""

LATE_IN_A_ROW = 8
"""So many messages in a row are too many to find more work queued: their answers show it sooner."""

STATE_PAUSE_S = 60.0 + RETRY_WAIT_S
"""The longest pause before a state message that was not taken is tried again (s)."""


@define(eq=False)
class Oracle(Ledger):
    """The rules for messages, links and times, in addition to those of the ledger."""

    steady_s: float
    """The time between two samples while there is a link (s)."""
    tries: Tries = field(init=False)
    states_share: StatesShare = field(init=False)
    told: Told = field(init=False)
    resent: int = field(default=0, init=False)
    """How often a message arrived again."""
    _newest_on: dict[int, int] = field(factory=dict, init=False)
    """The same for each of the aggregator's connections."""
    _newest_notice: dict[str, int] = field(factory=dict, init=False)
    """The same of each kind of notices."""
    _knows_run: bool = field(default=True, init=False)
    """Whether the beginning of the run that is being sent was taken, or there is none."""
    _newest_run_event: int = field(default=-1, init=False)
    _latest: tuple[Key | None, Key | None] = field(default=(None, None), init=False)
    """The last two samples that were made."""
    _kept_up_since: float = field(default=0.0, init=False)
    """When a message was last sent while both of the last two samples waited (s)."""
    _run_event_done_at: float = field(default=0.0, init=False)
    passed: set[Key] = field(factory=set, init=False)
    """Samples whose handling failed while newer ones, which are stored first, were unanswered."""
    _late_in_a_row: int = field(default=0, init=False)
    _failed_at: float = field(default=-math.inf, init=False)
    """When the aggregator last did not take an event or a sample (s)."""
    _state_failed_at: float = field(default=-math.inf, init=False)
    """When the aggregator last did not take a state message (s)."""
    _sent_states: set[str] = field(factory=set, init=False)
    """The kinds of state messages that were ever sent."""
    _state_since: float = field(default=0.0, init=False)
    disagreed_at: float = field(default=-math.inf, init=False)
    """When the engine's control state last disagreed with what it had told of runs (s)."""
    _shown: bool | None = field(default=None, init=False)
    """Whether a run is on, by the last ControlState that was sent."""
    dial_s: float = field(default=DIAL_S, init=False)
    """How long the next dial may take (s)."""
    _offline_s: float = field(default=OFFLINE_S, init=False)
    _link: WatchedLink | None = field(default=None, init=False)
    _links: int = field(default=0, init=False)
    _state: str = field(default="Started", init=False)
    _last_sample: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.tries = Tries(self.expect, self._note_set_aside)
        self.states_share = StatesShare(self.expect)
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
                self._last_sample = trio.current_time()
                self._latest = (self._latest[-1], key)

    # Processes

    def begin_life(self, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has started, and what is in its outbox."""
        super().begin_life(durable=durable, outbox=outbox)
        if outbox.waiting:
            self._latest = (None, None)  # a sample may be among the messages that wait
        self._state, self._link, self._offline_s = "Started", None, OFFLINE_S
        self._last_sample = self._state_since = trio.current_time()
        self.tries.begin_life()
        self.told = Told(self.expect)
        self._knows_run = True

    def end_life(self, how: Death, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process and its link have ended, and what may be lost with the process."""
        super().end_life(how, durable=durable, outbox=outbox)
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
            self._state_failed_at = trio.current_time()
        link.is_open = False
        if self._last_sample is not None:  # from here on at the offline rate
            self._last_sample = max(self._last_sample, trio.current_time() - self._offline_s)
        self.trace.note("link", link.number, "ended")

    def _note_set_aside(self, sent: Sent) -> None:
        self._set_aside.update(dict.fromkeys(sent.keys, trio.current_time()))
        self._set_aside_now += 1
        if sent.kind != "ErrorLogMsg":  # telling of it in another error log would never end
            self.told.give_up("set aside")
        sometimes("set aside")
        self.taint = self.taint or sent.is_run_event
        if sent.is_run_event:
            self._knows_run = sent.kind == "RunStoppedMsg"

    @property
    def changed_at(self) -> float:
        """When the state or the run last changed, or a message was last not taken (s)."""
        told_at = max(self._run_event_done_at, self._failed_at, self._state_failed_at)
        return max(self._state_since, self._engine_run_since, told_at)

    def _note_thinned(self) -> None:
        self.told.give_up("thinned")

    def is_unanswered(self, key: Key) -> bool:
        """Tell whether a message is unanswered on the present link."""
        link = self._link
        return link is not None and link.is_open and link.is_unanswered(key)

    @property
    def catching_up_s(self) -> float:
        """The time from the link's opening to the last change of state (s), at least 0."""
        return max(0.0, self._state_since - self._link.opened_at) if self._link else 0.0

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
            link.is_open and link is self._link, f"{kind} {number} sent on a link that ended"
        )
        self._check_number(number, keys[0] if keys else None)
        introduced = link.messages >= 2 - link.may_lack_method
        introduces = kind == "RunStartedMsg" and introduced and not link.last_number
        self.expect(len(body) <= MESSAGE_BYTES_MAX, f"{kind} {number} was sent with over 16 MiB")
        if kind == "ErrorLogMsg" and keys[-1] not in self._numbers:
            self._check_merged(keys[-1])
        was_sent = any(key in self._numbers for key in keys) or kind in self._sent_states
        if self._is_behind():
            self._kept_up_since = trio.current_time()
        for key in keys:
            self._check_order(link, number, key, introduces=introduces)
        if keys:
            self._check_same(keys[0], body)
        else:
            self._sent_states.add(kind)
            self._note_state(kind, body)
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
            link.mark_sample(others_wait=self._latest[-1] not in self._numbers)

    def _check_number(self, number: int, key: Key | None) -> None:
        is_new = number not in self._numbered
        known = self._numbered.setdefault(number, key)
        self.expect(
            is_new or (known == key and key is not None),
            f"{key or 'a state'} was sent with the number {number} of {known or 'a state'}",
        )

    def _check_same(self, key: Key, body: str) -> None:
        if key in self.tries.smaller:
            sometimes("goes smaller")
            self.tries.smaller.discard(key)
            self._bodies[key] = hash(body)
        known = self._bodies.setdefault(key, hash(body))
        self.expect(known == hash(body), f"{key} was sent again, and it is not the same")

    def _check_merged(self, key: Key) -> None:
        """Check that errors that were logged while an error log waited are part of it."""
        place = self._place.get(key, 0)
        for later in self.made[place + 1 :] if place >= self._life_began else ():
            if later[0] == "errors":
                together = self._made_at[later] > trio.current_time() - COMMIT_S - ROUNDING_S
                self.expect(together, f"{key} was sent, and {later} had been logged behind it")
            if later[0] != SAMPLE:
                return

    def note_spoilt_log(self) -> None:
        """Note that the disk may bring back what has changed since: logs, and ends of runs."""
        changing = "errors", "RunStoppedMsg"
        self._bodies = {key: body for key, body in self._bodies.items() if key[0] not in changing}

    def _note_state(self, kind: str, body: str) -> None:
        if kind == "ControlStateMsg":
            self._shown = bool(json.loads(body)["control_state"]["is_running"])
        elif kind == "UodInfoMsg":
            self._offline_s = min(OFFLINE_S, json.loads(body)["data_log_interval_seconds"])

    def _check_order(self, link: WatchedLink, number: int, key: Key, *, introduces: bool) -> None:
        known = self._numbers.setdefault(key, number)
        self.expect(known == number, f"{key} has the number {known} and was sent with {number}")
        notice = is_notice(key)
        if key in self._place:
            # What another process made, and the end of its run, are in the outbox's order.
            again = self.tries.has_failed(key) or (notice and self.tries.in_vain(key) > 0)
            last = link.last_notice if notice else link.last_number
            self.expect(
                introduces or again or number >= last, f"{key} {number} was sent behind {last}"
            )
            self.expect(
                introduces
                or self._state != "Reconnected"
                or self._made_at[key] > link.opened_at
                or self.tries.in_vain(key) >= PASSED_AFTER,
                f"{key} had waited, and was sent when all that had waited was said to be",
            )
            if not introduces:
                self._check_sides(key, is_notice=notice)
        if not introduces:
            self.tries.send(key, link)
            self.expect(key not in self._answered, f"{key} was sent again, and it was answered")
            self.expect(key not in self._set_aside, f"{key} was sent again, and was set aside")
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
                self.expect(False, f"{key} was sent, and {before} before it is not delivered")

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
            self._state_failed_at = now
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
        self._late_in_a_row = self._late_in_a_row + 1 if in_line_s > WORK_S + handling_s else 0
        self.expect(
            self._late_in_a_row < LATE_IN_A_ROW,
            f"{in_line_s:.2f} s of work stood at the aggregator",
        )

    def _check_arrival(self, key: Key, connection: int) -> None:
        again = self.received.get(key, 0)
        self.received[key] = again + 1
        self.resent += again > 0
        sometimes("arrived again", again)
        place = self._place.get(key)
        self.expect(place is not None, f"{key} was never made")
        if not again and place is not None:
            # Behind a kill samples may come back that were just given up, but no event. Between two
            # links, it is the order of sending that tells.
            newest = self._newest_notice.get(key[0], -1)
            if not is_notice(key):
                newest = self._newest_on.get(connection, -1)
                if key[0] in RUN_EVENTS:
                    newest = max(newest, self._newest_run_event)
            self.expect(place > newest, f"{key} arrived behind {self.made[newest]}")
            self._newest = max(self._newest, place)
            if is_notice(key):
                self._newest_notice[key[0]] = place
            else:
                self._newest_on[connection] = place
                if key[0] in RUN_EVENTS:
                    self._newest_run_event = place

    def end_dial(self, *, in_line: bool) -> None:
        """Note that a dial has ended; `in_line` says whether it was accepted but never let in."""
        sometimes("dial in line", in_line)
        self.dial_s = DIAL_IN_LINE_S if in_line else DIAL_S

    # What is always true

    def change_state(self, before: str, after: str) -> None:
        """Check that a change of state is legal, and note it."""
        self.trace.note("state", before, "->", after)
        self.expect(before == self._state, f"the state was {self._state}, and {before} is left")
        sometimes(f"{before} -> {after}")
        legal = EDGES[before].split()
        self.expect(after in legal, f"the state went from {before} to {after}")
        self._state, self._state_since = after, trio.current_time()

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
        if self._state == "Disconnected":
            waited = now - self._state_since
            self.expect(
                waited <= WAIT_S + self.dial_s + ROUNDING_S, f"no dial ended for {waited:.1f} s"
            )
        self._check_told(outbox)
        if self._state not in ("Stopped", "ShutdownComplete"):
            self.told.check_second()
        if self._link is not None and self._link.is_open:
            self._link.check_waiting()

    def _check_gap(self) -> None:
        """Check that samples are taken as often as they must be, with or without a link."""
        if self._last_sample is None or self._state in ("Stopped", "ShutdownComplete"):
            return
        since, longest = self._last_sample, self._offline_s
        if self._link is not None and self._link.is_open:
            since = max(since, self._link.opened_at, self._kept_up_since)
            longest = max(longest, self.steady_s) if self._is_behind() else self.steady_s
            sometimes("taken seldom", trio.current_time() - since > 2 * self.steady_s)
        gap = trio.current_time() - since
        self.expect(gap <= longest + TICKS_S + ROUNDING_S, f"no sample was taken for {gap:.1f} s")

    def _is_behind(self) -> bool:
        """Tell whether the last two samples wait to be sent; samples are then taken less often."""
        return all(key is None or key not in self._numbers for key in self._latest)

    def _check_told(self, outbox: OutboxStatistics) -> None:
        """Check that a steady link has all state messages, and shows whether a run is on."""
        if outbox.waiting == 0:
            self._settled = len(self.made)
        link, run, now = self._link, self._engine_run, trio.current_time()
        steady = link is not None and link.is_open and self._state in ("Connected", "Reconnected")
        since = max(self._state_since, self._engine_run_since, self._run_event_done_at)
        since = max(since, self.disagreed_at)
        # A state message must not overtake a run event. After that it goes out at the next tick or
        # answer; over a slow link they go one after the other. The first sample shows what a run
        # has changed, a durable outbox writes that before it is sent, and the next sample sends it.
        known_s = 2 * (self.steady_s + TICKS_S) + COMMIT_S + RETRY_WAIT_S
        known_s += STATES * link.longest_s if link is not None else 0
        if link is None or not steady or self.may_a_run_event_wait() or now - since < known_s:
            return
        if link.has_state_unanswered or link.is_silent:
            return  # over a slow link, state messages go out one after the other
        states = {"UodInfoMsg", "MethodMsg", "ControlStateMsg", "MethodStateMsg"}
        if run is not None:
            states.add("RunLogMsg")
        untold = sorted(s for s in states - link.told if not self.tries.is_in_trouble(s))
        self.expect(not untold, f"{', '.join(untold)} was not sent on this link")
        # A state message that was not taken is tried again after growing pauses.
        has_failed = now - self._state_failed_at < STATE_PAUSE_S
        has_failed = has_failed or self.tries.is_in_trouble("ControlStateMsg")
        shows = self._shown == (run is not None) or has_failed
        self.expect(shows, f"the run is {run}, and shown was {self._shown}")


def _answer_class(said: str) -> str:
    """Return whether an answer that is not Success means `failed` or `refused`."""
    return "failed" if "Handler raised exception" in said else "refused"
