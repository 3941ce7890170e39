"""Watches a simulated runner from outside and tells when it breaks a promise.

It knows what the engine reported, what went over each link and was answered, what the aggregator
received and what the state was, all from public interfaces, and it has the rules from the design,
not from the code. It checks at every message and once a second; what can only be said when all has
been delivered, `check_end` says.
"""

import json
import math
from collections.abc import Callable
from itertools import groupby
from typing import Literal

import trio
from attrs import define, field

from trio_runner._outbox import OutboxStatistics
from trio_runner.protocol import MessageBase, SuccessMessage
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation._trace import Trace
from trio_runner.simulation._watched_link import (
    ROUNDING_S,
    SAMPLE,
    Key,
    Sent,
    WatchedLink,
    key_of,
    key_of_body,
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
"""The legal changes of state, as the design has them."""

OFFLINE_S = 5.0
"""Between two samples while there is none, unless the unit logs oftener (s)."""

TICKS_S = 0.3
"""How much later than that a sample may come, the runner having ticks (s)."""

DISCONNECTED_S = 10.0 + 10.0
"""The longest wait before a dial, and the dial (s)."""

RETRY_S = 0.2
"""After a failure at the aggregator a message is not sent again sooner (s)."""

RETRY_WAIT_S = 1.0
"""Before a message is sent again after such a failure, nothing is sent (s)."""

CUT_MIN = 8
"""So many samples missing in a row are cut off, unless many are missing beside them as well."""

FEW = 12
"""Who has room for no more samples gives up of the 6 oldest: what then stays may lie far apart."""

COMMIT_S = 0.5
"""What a durable outbox may lose of samples, and forget of answers, when the process dies (s)."""

TRIES_MAX = 3
"""After so many failures at the aggregator a message is set aside."""

Death = Literal["stopped", "raised", "killed", "torn"]
"""How a process ended: in order, by a bug of its engine, at once, or at once in mid-commit."""


@define(eq=False)
class Oracle:
    """The rules; `on_violation` is called with the first that is broken."""

    trace: Trace
    on_violation: Callable[[str], None]
    steady_s: float
    """Between two samples while there is a link (s)."""
    violation: str | None = field(default=None, init=False)
    made: list[Key] = field(factory=list, init=False)
    """Every event and sample that the engine made, in order."""
    received: dict[Key, int] = field(factory=dict, init=False)
    """How often the aggregator has got each."""
    handled: set[Key] = field(factory=set, init=False)
    """What the aggregator has carried out."""
    excused: set[Key] = field(factory=set, init=False)
    """What was lost with a process that had it in memory only."""
    thinned: int = field(default=0, init=False)
    """By the statistics of the processes that have ended."""
    deaths: int = field(default=0, init=False)
    """Processes that ended otherwise than in order."""
    taint: bool = field(default=False, init=False)
    """Whether the aggregator may take the next samples for another run's, through no fault."""
    resent: int = field(default=0, init=False)
    _made_at: dict[Key, float] = field(factory=dict, init=False)
    _place: dict[Key, int] = field(factory=dict, init=False)
    _newest: int = field(default=-1, init=False)
    """The place of the newest that was received."""
    _newest_on: dict[int, int] = field(factory=dict, init=False)
    """The same for each of the aggregator's connections."""
    _newest_event: int = field(default=-1, init=False)
    _answered: dict[Key, float] = field(factory=dict, init=False)
    _set_aside: dict[Key, float] = field(factory=dict, init=False)
    _set_aside_now: int = field(default=0, init=False)
    """How many the process that lives has set aside."""
    _inherited: int = field(default=0, init=False)
    _failures: dict[Key, int] = field(factory=dict, init=False)
    _failed_at: dict[Key, float] = field(factory=dict, init=False)
    _numbers: dict[Key, int] = field(factory=dict, init=False)
    _numbered: dict[int, Key | None] = field(factory=dict, init=False)
    """What was sent with each number, None for a state."""
    _bodies: dict[Key, int] = field(factory=dict, init=False)
    """The hash of what was sent."""
    _durable: bool = field(default=True, init=False)
    """Whether the process that lives has its outbox on a disk."""
    _life_began: int = field(default=0, init=False)
    """How much was made before the process that lives."""
    _state_since: float = field(default=0.0, init=False)
    _settled: int = field(default=0, init=False)
    """How much was made before the outbox last was empty: nothing of that can wait any more."""
    _engine_run: str | None = field(default=None, init=False)
    """The run that the engine has."""
    _engine_run_since: float = field(default=0.0, init=False)
    _shown: bool | None = field(default=None, init=False)
    """Whether a run is on, by the last ControlState that was sent."""
    _offline_s: float = field(default=OFFLINE_S, init=False)
    _link: WatchedLink | None = field(default=None, init=False)
    _links: int = field(default=0, init=False)
    _state: str = field(default="Started", init=False)
    _last_sample: float | None = field(default=None, init=False)
    _healthy_disk_at: float = field(default=0.0, init=False)
    _run: str | None = field(default=None, init=False)
    _thinned_before: int = field(default=0, init=False)
    """What the process that lives had given up at the last check."""
    _newest_before: int = field(default=-1, init=False)
    """The place of the newest that was received by then."""
    _crowded: set[Key] = field(factory=set, init=False)
    """What waited while the outbox had room for few samples, so that none was sure of it."""

    def expect(self, holds: object, what: str) -> None:
        """Note a violation unless something holds."""
        if not holds and self.violation is None:
            self.violation = what
            self.trace.note(f"VIOLATION {what}")
            self.on_violation(what)

    # What the engine makes

    def make(self, message: em.EngineMessage) -> None:
        """Note an event or a sample that the engine hands over."""
        key = key_of(message)
        assert key is not None
        self._add(key)
        if key[0] == SAMPLE:
            self._check_gap()
            self._last_sample = trio.current_time()

    def _add(self, key: Key) -> None:
        assert key not in self._place, f"{key} was made twice"
        self.excused.discard(key)
        self._place[key] = len(self.made)
        self.made.append(key)
        self._made_at[key] = trio.current_time()
        if key[0] in ("RunStartedMsg", "RunStoppedMsg"):
            self._set_engine_run(key[1] if key[0] == "RunStartedMsg" else None)
        self.trace.note(f"made {' '.join(key)}")

    def _set_engine_run(self, run_id: str | None) -> None:
        self._engine_run, self._engine_run_since = run_id, trio.current_time()

    def make_end_of_run(self, run_id: str) -> None:
        """Note that the outbox ends a run that was open when the process died."""
        self._add(("RunStoppedMsg", run_id))

    # Processes

    def begin_life(self, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has started, with what is in its outbox."""
        self._inherited = outbox.waiting + outbox.thinned + outbox.set_aside
        self._state, self._link, self._durable = "Started", None, durable
        self._last_sample = self._state_since = trio.current_time()
        self._offline_s, self._life_began = OFFLINE_S, len(self.made)
        self._set_engine_run(None)
        self._failures.clear()
        self._healthy_disk_at = trio.current_time()
        self._set_aside_now = self._thinned_before = 0
        if not durable:
            self._numbers.clear()
            self._numbered.clear()

    def find_open_run(self, run_id: str | None, expected: str | None, *, in_doubt: bool) -> None:
        """Check the run that the outbox of a new process knows."""
        self._set_engine_run(run_id)
        beginning = ("RunStartedMsg", str(expected))
        if beginning in self._set_aside:
            expected = None  # a run is known by its beginning, and that was given up
        may_differ = in_doubt or beginning in self.excused
        if in_doubt:
            self._numbered.clear()  # how far they had come may not have been written
            # Nor may the end of a run have been: this process ends it again, or a later one.
            self._forget(("RunStoppedMsg", str(run_id)))
        self.expect(
            run_id == expected or may_differ, f"the outbox knows run {run_id}, open was {expected}"
        )

    def _forget(self, key: Key) -> None:
        if self._place.pop(key, None) is not None:
            self.excused.add(key)  # until it is made anew, which it is not while the run goes on
        self._numbers.pop(key, None)
        self._bodies.pop(key, None)
        self._answered.pop(key, None)
        self.received.pop(key, None)

    def end_life(self, how: Death, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has ended, and what it may have taken with it."""
        self.check_books(outbox)
        self.thinned += outbox.thinned
        in_order = how in ("stopped", "raised")
        if not in_order:
            self.deaths += 1
        if self._link is not None:
            self._link.is_open = False
        now = trio.current_time()
        since = -1.0
        if durable:
            since = now - COMMIT_S - ROUNDING_S if not in_order else now + 1
            if outbox.degraded is not None:
                since = self._healthy_disk_at - COMMIT_S - ROUNDING_S
        if not durable:
            self._check_loss(outbox)
        if durable or outbox.waiting:
            self._excuse(since, events=not durable or outbox.degraded is not None)
        if how == "torn" and self.made:
            self.excused.add(self.made[-1])
        if not durable or outbox.degraded is not None:
            # The beginning or the end of a run may be lost with it, or come once more.
            self.taint = True

    def _excuse(self, since: float, *, events: bool) -> None:
        for key in self.made:
            may_be_lost = self._made_at[key] >= since and (events or key[0] == SAMPLE)
            if may_be_lost and key not in self.handled:
                self.excused.add(key)
        for answers in (self._answered, self._set_aside):
            for key, at in list(answers.items()):
                if at >= since:  # the answer may be forgotten
                    del answers[key]
                    if key not in self.handled:
                        self.excused.add(key)

    def _check_loss(self, outbox: OutboxStatistics) -> None:
        """Check that a process takes with it what waited in its memory, and no more."""
        here = self.made[self._life_began :]
        lost = [key for key in here if key not in self.handled and key not in self._set_aside]
        events = sum(1 for key in lost if key[0] != SAMPLE)
        waiting, thinned = outbox.waiting, outbox.thinned
        self.expect(events <= waiting, f"{events} events are lost, and {waiting} messages waited")
        self.expect(
            len(lost) <= waiting + thinned,
            f"{len(lost)} messages are lost, {waiting} waited and {thinned} were given up",
        )

    # Links

    def open_link(self) -> WatchedLink:
        """Note that a link is ready."""
        self.expect(self._link is None or not self._link.is_open, "two links at once")
        self._links += 1
        self._link = WatchedLink(self._links, self.expect)
        self.trace.note(f"link {self._links}")
        return self._link

    def close_link(self, link: WatchedLink) -> None:
        """Note that a link has ended."""
        link.is_open = False
        self._last_sample = trio.current_time()  # from here on at the offline rate
        self.trace.note(f"link {link.number} ended")

    def is_unanswered(self, key: Key) -> bool:
        """Tell whether a message is under way on the link, or its answer is."""
        link = self._link
        return link is not None and link.is_open and link.is_unanswered(key)

    def send(self, link: WatchedLink, number: int, body: str) -> None:
        """Check a message that goes out."""
        kind = body.rsplit('"_type":"', 1)[1].partition('"')[0]
        key = key_of_body(kind, body)
        self.trace.note(f"send {number} {kind}")
        self.expect(
            link.is_open and link is self._link, f"{kind} {number} sent on a link that ended"
        )
        self._check_number(number, key)
        introduces = kind == "RunStartedMsg" and link.messages >= 2 and not link.last_number
        if key is None:
            self._note_state(kind, body)
        else:
            self._check_order(link, number, key, introduces=introduces)
            self._check_same(key, body)
        link.send(number, Sent(key, kind, body, repeats=introduces and key in self._answered))

    def _check_number(self, number: int, key: Key | None) -> None:
        is_new = number not in self._numbered
        known = self._numbered.setdefault(number, key)
        self.expect(
            is_new or (known == key and key is not None),
            f"{key or 'a state'} was sent with the number {number} of {known or 'a state'}",
        )

    def _check_same(self, key: Key, body: str) -> None:
        known = self._bodies.setdefault(key, hash(body))
        self.expect(known == hash(body), f"{key} was sent again, and it is not the same")

    def _note_state(self, kind: str, body: str) -> None:
        if kind == "ControlStateMsg":
            self._shown = bool(json.loads(body)["control_state"]["is_running"])
        elif kind == "UodInfoMsg":
            self._offline_s = min(OFFLINE_S, json.loads(body)["data_log_interval_seconds"])

    def _check_order(self, link: WatchedLink, number: int, key: Key, *, introduces: bool) -> None:
        known = self._numbers.setdefault(key, number)
        self.expect(known == number, f"{key} has the number {known} and was sent with {number}")
        since = trio.current_time() - self._failed_at.get(key, -math.inf)
        self.expect(since >= RETRY_S, f"{key} had failed, and was sent again after {since:.2f} s")
        if key in self._place:
            # What another process made, and the end of its run, are in the outbox's order.
            again = key in self._failures
            self.expect(
                introduces or again or number > link.last_number,
                f"{key} {number} was sent behind {link.last_number}",
            )
            self.expect(
                introduces or self._state != "Reconnected" or self._made_at[key] > link.opened_at,
                f"{key} had waited, and was sent when all that had waited was said to be",
            )
        if not introduces:
            self.expect(key not in self._answered, f"{key} was sent again, and it was answered")
            self.expect(key not in self._set_aside, f"{key} was sent again, and was set aside")
            if key not in self._failures:
                link.last_number = number

    def answer(self, link: WatchedLink, number: int, answer: MessageBase) -> None:
        """Note the answer to a message."""
        self.trace.note(f"answer {number} {type(answer).__name__}")
        sent = link.answer(number)
        if sent is None or sent.key is None:
            return
        said = str(answer)
        if sent.repeats:
            self.taint = self.taint or not isinstance(answer, SuccessMessage)
        elif isinstance(answer, SuccessMessage):
            self._answered[sent.key] = trio.current_time()
        elif "No engine registered" not in said:
            failures = self._failures[sent.key] = self._failures.get(sent.key, 0) + 1
            self._failed_at[sent.key] = trio.current_time()
            if "Handler raised exception" not in said or failures >= TRIES_MAX:
                self._set_aside[sent.key] = trio.current_time()
                self._set_aside_now += 1
                self.taint = self.taint or sent.key[0].startswith("Run")

    # The aggregator's side

    def receive(self, message: em.EngineMessage, connection: int, refused: str | None) -> None:
        """Check a message that has come in, and what the aggregator made of it."""
        key = key_of(message)
        self.trace.note(f"receive {message.sequence_number} {type(message).__name__} {refused}")
        tainted = self.taint
        by_fault = refused is not None and refused.startswith(("answered", "sent before"))
        if key is not None:
            self._check_arrival(key, connection)
            if not by_fault:
                self.handled.add(key)
                self._follow_run(key)
        if refused is None or by_fault or tainted or self.taint:
            return
        harmless = isinstance(message, em.RunStartedMsg) and "active already" in refused
        self.expect(harmless, f"the aggregator refused {type(message).__name__}: {refused}")

    def _check_arrival(self, key: Key, connection: int) -> None:
        again = self.received.get(key, 0)
        self.received[key] = again + 1
        self.resent += again > 0
        place = self._place.get(key)
        self.expect(place is not None, f"{key} was never made")
        if not again and place is not None:
            # Behind a kill samples may come back that were just given up, but no event. Between two
            # links, it is the order of sending that tells.
            newest = self._newest_on.get(connection, -1)
            if key[0] != SAMPLE:
                newest = max(newest, self._newest_event)
            self.expect(place > newest, f"{key} arrived behind {self.made[newest]}")
            self._newest = max(self._newest, place)
            self._newest_on[connection] = place
            if key[0] != SAMPLE:
                self._newest_event = place

    def _follow_run(self, key: Key) -> None:
        kind, run_id = key
        if kind == "RunStartedMsg":
            self.taint = self._has_no_end(run_id)
            self._run = run_id
        elif kind == "RunStoppedMsg":
            # A run whose beginning was set aside cannot be the one that is on.
            known = ("RunStartedMsg", run_id) not in self._set_aside
            self.expect(
                self._run in (None, run_id) or not known,
                f"RunStopped {run_id} came while {self._run} was on",
            )
            self.taint = False
            self._run = None

    def _has_no_end(self, run_id: str) -> bool:
        """Tell whether a run that begins on the wire may be one that nobody will end.

        Its end was lost, or may be, with a process that had it, or its beginning, in memory only.
        """
        beginning, end = ("RunStartedMsg", run_id), ("RunStoppedMsg", run_id)
        if beginning in self.excused:
            return True
        if not self._durable and self._place.get(beginning, 0) < self._life_began:
            return True  # who would have made its end is dead
        return end in self.excused and run_id != self._engine_run

    # What is always true

    def change_state(self, before: str, after: str) -> None:
        """Check a change of state."""
        self.trace.note(f"state {before} -> {after}")
        self.expect(before == self._state, f"the state was {self._state}, and {before} is left")
        legal = EDGES[before].split()
        self.expect(after in legal, f"the state went from {before} to {after}")
        self._state, self._state_since = after, trio.current_time()

    def check_second(self, outbox: OutboxStatistics, bytes_max: int, largest: int) -> None:
        """Check what holds at any time; called once a second while a process lives."""
        now = trio.current_time()
        self.check_books(outbox)
        if outbox.degraded is None:
            self._healthy_disk_at = now
        self._note_room(outbox)
        if outbox.bytes_waiting > bytes_max:
            # Events, the last samples, and what was sent and is unanswered, cannot be given up.
            over = outbox.bytes_waiting - bytes_max
            allowed = (self._not_to_be_thinned() + 2) * largest
            self.expect(over <= allowed, f"the outbox is {over} bytes over its bound")
        self._check_gap()
        if self._state == "Disconnected":
            waited = now - self._state_since
            self.expect(waited <= DISCONNECTED_S + ROUNDING_S, f"no dial ended for {waited:.1f} s")
        self._check_told(outbox)
        if self._link is not None and self._link.is_open:
            self._link.check_waiting()

    def _note_room(self, outbox: OutboxStatistics) -> None:
        """Note what waits, if samples were given up and few are left that could be."""
        if outbox.thinned > self._thinned_before:
            self._thinned_before = outbox.thinned
            if outbox.waiting - self._not_to_be_thinned() <= FEW:
                # What is behind them may have arrived since.
                self._crowded.update(self.made[self._newest_before + 1 :])
        self._newest_before = self._newest

    def _check_gap(self) -> None:
        """Check that samples are taken as often as they shall be, link or not."""
        if self._last_sample is None or self._state in ("Stopped", "ShutdownComplete"):
            return
        since, longest = self._last_sample, self._offline_s
        if self._link is not None and self._link.is_open:
            since, longest = max(since, self._link.opened_at), self.steady_s
        gap = trio.current_time() - since
        self.expect(gap <= longest + TICKS_S + ROUNDING_S, f"no sample was taken for {gap:.1f} s")

    def _check_told(self, outbox: OutboxStatistics) -> None:
        """Check that a link in steady state knows all states, and whether a run is on."""
        if outbox.waiting == 0:
            self._settled = len(self.made)
        link, run, now = self._link, self._engine_run, trio.current_time()
        steady = link is not None and link.is_open and self._state in ("Connected", "Reconnected")
        since = max(self._state_since, self._engine_run_since)
        # A state must not overtake an event. With none waiting all states went out at the last tick
        # or answer, as they were then: what a run has changed is seen with the first sample, a
        # durable outbox writes it before it is told, and at the next sample it is.
        known_s = 2 * (self.steady_s + TICKS_S) + COMMIT_S + RETRY_WAIT_S
        if link is None or not steady or self._may_an_event_wait() or now - since < known_s:
            return
        states = {"UodInfoMsg", "MethodMsg", "ControlStateMsg", "MethodStateMsg"}
        states.add("QueuedRunLogMsg" if run is None else "RunLogMsg")
        untold = sorted(states - link.told)
        self.expect(not untold, f"{', '.join(untold)} was not sent on this link")
        shows = self._shown == (run is not None) or link.is_state_unanswered("ControlStateMsg")
        self.expect(shows, f"the run is {run}, and shown was {self._shown}")

    def _may_an_event_wait(self) -> bool:
        """Tell whether an event may be in the outbox, or under way, so that states wait for it."""
        done = self._answered.keys() | self._set_aside.keys()
        young = self.made[self._settled :]
        return any(key[0] != SAMPLE and key not in done for key in young)

    def _not_to_be_thinned(self) -> int:
        done = self._answered.keys() | self._set_aside.keys()
        newest = self.made[self._newest + 1 :]
        events = sum(1 for key in newest if key[0] != SAMPLE)
        return events + sum(1 for key in self._numbers if key not in done)

    def check_books(self, outbox: OutboxStatistics) -> None:
        """Check that what was taken, or was left by an earlier process, is somewhere."""
        gone = outbox.delivered + outbox.thinned + outbox.set_aside + outbox.waiting
        taken = self._inherited + outbox.events_taken + outbox.samples_taken
        self.expect(gone == taken, f"{taken} messages were taken, {gone} are accounted for")
        self.expect(
            outbox.set_aside == self._set_aside_now,
            f"{outbox.set_aside} messages are said to be set aside, {self._set_aside_now} were",
        )

    # At the end

    def check_end(self, outbox: OutboxStatistics) -> None:
        """Check what holds when all has been delivered."""
        self.expect(outbox.waiting == 0, f"{outbox.waiting} messages were left waiting")
        given_up = self.excused | self._set_aside.keys()
        made = dict.fromkeys(self.made)  # once each: the end of a run may be made anew
        missing = [key for key in made if key not in self.handled and key not in given_up]
        events = [key for key in missing if key[0] != SAMPLE]
        self.expect(not events, f"{len(events)} events never arrived, the first: {events[:1]}")
        holes, told = len(missing) - len(events), self.thinned
        right = holes == told if not (self.deaths or self.excused) else holes <= told
        self.expect(right, f"{holes} samples never arrived, and {told} are said to be given up")
        self._check_evenly_thin(set(missing))

    def _check_evenly_thin(self, missing: set[Key]) -> None:
        """Check that of a long outage no part is gone as a whole."""
        samples = [key for key in self.made if key[0] == SAMPLE]
        gone = [key in missing for key in samples]
        place = 0
        cut_off = missing - self._crowded
        for is_gone, run in groupby(samples, cut_off.__contains__):
            length, before = len(list(run)), place
            place += length
            if is_gone and length >= CUT_MIN:
                beside = gone[max(0, before - 2 * length) : before], gone[place:][: 2 * length]
                many = max(map(sum, beside)) * 4 >= length
                self.expect(many, f"{length} samples in a row were given up, and few beside them")
