"""Tests of the oracle: the simulation finds each of these bugs when it is put into the runner.

A bug is a small patch of behaviour. It must be found within 200 seeds, by the rule that it breaks.
To be quick, each test begins at the seed that once found its bug first. If that seed misses, the
test tries the later seeds and then the earlier ones. A bug that only rare faults bring to light
names these faults, and its seeds have no others.

Two rules of delivery do not belong to the life of one engine in one thread. `tests/threads` breaks
the rule that no thread waits for another's disk (11), and `tests/simulation/test_fleet.py` the rule
that a herd comes back evenly spread (13). That a piece of a large message is seen to leave a
kilobyte at a time (8) matters only on paths that are too thin for samples:
`test_bytes_are_seen_to_leave_a_kilobyte_at_a_time` holds it.

A new kind of fault changes the schedules of all others, unless it is in `BY_NAME`. If it is not,
`python -m tests.simulation.test_mutants [NAME ...]` tells where each bug is found now.
"""

import logging
import math
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
import trio
from attrs import evolve, frozen

from tests.simulation.rare_faults import RARE_FAULTS
from trio_runner import (
    LinkLost,
    _again,
    _answers,
    _away,
    _backoff,
    _intake,
    _mistakes,
    _news,
    _outbox,
    _sender,
    _states,
    _tasks,
    _ticker,
    _warnings,
    _window,
)
from trio_runner._outbox import _base, _line, _shrinking
from trio_runner._outbox_sqlite import DurableOutbox, _apart, _durable, _facts, _file, _opening
from trio_runner.net import Session, _commands, _framed, _said, _session
from trio_runner.protocol import ErrorMessage, MessageBase, pack, unpack
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.trials import _simulate
from trio_runner.simulation.trials._faults import FAULTS

SEEDS = 200
"""How many seeds may be tried until a bug is found."""

LIFE_S = 30.0
"""How long faults happen in each life, unless a bug names another time (s)."""

BY_NAME = {
    "costly_run_log",
    "huge_archive",
    "link_not_taken",
    "moved",
    "restless_run_log",
    "slow_stop",
    "stop_at_once",
    "stop_on_the_way",
    "toggle_in_reading",
}
"""Kinds of faults that happen only where a bug names them. If one of them happened everywhere, it
would change all schedules, and the seed of each bug would have to be found anew."""

USUAL = [kind for kind in FAULTS if kind not in BY_NAME]

Patch = Callable[[pytest.MonkeyPatch], None]


@frozen
class Mutant:
    """A bug: its patch, and how it is found.

    `rule` is a regular expression that matches the text of the rule that the bug breaks. `seed`
    found it first, in a life of `life_s` (s) with only the faults of `kinds`, or with all usual
    ones if that is None.
    """

    patch: Patch
    rule: str
    seed: int
    kinds: tuple[str, ...] | None
    life_s: float


MUTANTS: dict[str, Mutant] = {}


def mutant(
    rule: str, *kinds: str, seed: int = 1, life_s: float = LIFE_S
) -> Callable[[Patch], Patch]:
    """Add a bug to `MUTANTS` under the name of its patch."""

    def add(patch: Patch) -> Patch:
        found = Mutant(patch, rule, seed, kinds or None, life_s)
        MUTANTS[getattr(patch, "__name__")] = found  # noqa: B009
        return patch

    return add


# What the sender does


@mutant("overtook|not delivered")
def send_run_events_before_samples_are_answered(to: pytest.MonkeyPatch) -> None:
    """Send a run event before everything ahead of it is answered."""
    send = _sender.Sender._send_what_may

    def send_what_may(self: _sender.Sender, *, with_states: bool) -> bool:
        head = self._due_head()
        if head is not None and head.is_run_event:
            return self._send_entry(head)
        return send(self, with_states=with_states)

    to.setattr(_sender.Sender, "_send_what_may", send_what_may)


@mutant("was unanswered|not delivered")
def send_samples_before_a_run_event_is_answered(to: pytest.MonkeyPatch) -> None:
    """Send what follows a run event before the event is answered."""
    send = _sender.Sender._send_entry

    def send_entry(self: _sender.Sender, entry: _outbox.Entry) -> bool:
        send(self, entry)
        self._is_barred = False
        return True

    to.setattr(_sender.Sender, "_send_entry", send_entry)


@mutant("both have failed", "one_handler_fails", "burst", "far_away", seed=74, life_s=120)
def retry_all_failed_notices_at_once(to: pytest.MonkeyPatch) -> None:
    """Try all notices that have failed again at the same time."""
    send = _sender.Sender._send_entry

    def send_entry(self: _sender.Sender, entry: _outbox.Entry) -> bool:
        send(self, entry)
        self._notices._retried = 0
        return True

    to.setattr(_sender.Sender, "_send_entry", send_entry)


@mutant("never arrived|was unanswered|are lost|not delivered", life_s=120)
def acknowledge_before_the_answer(to: pytest.MonkeyPatch) -> None:
    """Let a message leave the outbox when it is sent."""
    send = _sender.Sender._send_entry

    def send_entry(self: _sender.Sender, entry: _outbox.Entry) -> bool:
        send(self, entry)
        self._outbox.delivered(entry)
        return True

    to.setattr(_sender.Sender, "_send_entry", send_entry)
    to.setattr(_sender.Sender, "_judge", lambda *_: None)


@mutant("has the number")
def give_a_new_number_when_sent_again(to: pytest.MonkeyPatch) -> None:
    """Change the sequence number of a message that is sent again."""
    take = _outbox.Outbox.take

    def renumbered(self: _outbox.Outbox) -> _outbox.Entry:
        entry = take(self)
        if entry.tries > 1:
            del self._in_flight[entry.sequence_number]
            entry.sequence_number = self.next_number()
            self._in_flight[entry.sequence_number] = entry
        return entry

    to.setattr(_outbox.Outbox, "take", renumbered)


@mutant("set aside|never arrived|not stored", seed=6)
def take_any_answer_for_success(to: pytest.MonkeyPatch) -> None:
    """Take any answer for a delivery."""
    to.setattr(_sender, "classify", lambda _: _answers.Verdict.DELIVERED)


def _classify_as(to: pytest.MonkeyPatch, verdict: _answers.Verdict, as_: _answers.Verdict) -> None:
    classify = _answers.classify

    def mixed_up(answer: MessageBase) -> _answers.Verdict:
        right = classify(answer)
        return as_ if right is verdict else right

    to.setattr(_sender, "classify", mixed_up)


@mutant("set aside", "forgotten", seed=2)
def keep_a_link_that_is_not_registered(to: pytest.MonkeyPatch) -> None:
    """Take the answer "not registered" for a refusal of the message."""
    _classify_as(to, _answers.Verdict.NOT_REGISTERED, _answers.Verdict.POISON)


@mutant("never arrived|are lost", seed=16, life_s=60)
def take_a_failure_for_success(to: pytest.MonkeyPatch) -> None:
    """Count a message whose handling failed as delivered."""
    _classify_as(to, _answers.Verdict.TRANSIENT, _answers.Verdict.DELIVERED)


@mutant("set aside", seed=16)
def give_up_at_the_first_failure(to: pytest.MonkeyPatch) -> None:
    """Take a failure of the aggregator's handler for a refusal for good."""
    _classify_as(to, _answers.Verdict.TRANSIENT, _answers.Verdict.POISON)


@mutant("set aside", seed=6)
def retry_what_was_refused_for_good(to: pytest.MonkeyPatch) -> None:
    """Take a refusal for good for a failure."""
    _classify_as(to, _answers.Verdict.POISON, _answers.Verdict.TRANSIENT)


@mutant("had failed|had ended", seed=3, life_s=120)
def try_again_at_once(to: pytest.MonkeyPatch) -> None:
    """Send a message again without a pause after its handling has failed."""
    for module in (_sender, _news, _again):
        to.setattr(module, "pause_s", lambda _: 0)


@mutant("early", "handler_fails", "one_handler_fails", "cut_at_size", seed=2)
def never_pause_for_more_than_a_second(to: pytest.MonkeyPatch) -> None:
    """Try what fails again and again with the same short pause."""
    for module in (_sender, _news):
        to.setattr(module, "pause_s", lambda failures: float(failures > 0))


@mutant("too little patience", "slow_archive", "toggle_runs", seed=12, life_s=60)
def have_no_patience(to: pytest.MonkeyPatch) -> None:
    """Wait for the answer to every try only as long as for the first."""
    to.setattr(_sender, "patience", lambda _: 1)
    to.setattr(_again, "patience", lambda _: 1)


@mutant("a suspect", "mumble", "mute", "handler_fails", "one_handler_fails", seed=7)
def send_suspects_together_with_others(to: pytest.MonkeyPatch) -> None:
    """Let a message that was sent in vain go out together with others."""
    to.setattr(_outbox.Entry, "goes_alone", property(lambda entry: entry.is_run_event))


@mutant("set aside", "notices_fail", life_s=60)
def give_up_an_event_soon(to: pytest.MonkeyPatch) -> None:
    """Set an event aside when it has failed three times."""
    to.setattr(_line, "FAILURES_MAX", 3)


@mutant("set aside|not delivered", "poison", "cut_at_size", "toggle_runs", seed=31, life_s=120)
def never_shrink_an_end_of_a_run(to: pytest.MonkeyPatch) -> None:
    """Set an end of a run aside if it is refused in full."""
    to.setattr(_outbox.Outbox, "_shrink", lambda *_: False)


@mutant("before it is not delivered", "one_handler_fails", "toggle_runs", "burst")
def let_the_end_of_a_run_pass_a_failing_notice(to: pytest.MonkeyPatch) -> None:
    """Send the end of a run although a notice of the run has just failed."""
    to.setattr(_outbox.Outbox, "is_held_up", property(lambda _: False))


@mutant("s old", "one_handler_fails", "burst", seed=5)
def hold_up_samples_for_a_failing_notice(to: pytest.MonkeyPatch) -> None:
    """Let samples wait while a notice stands aside."""
    due = _sender.Sender._due_head

    def due_head(self: _sender.Sender) -> _outbox.Entry | None:
        head = due(self)
        return None if self._outbox.has_aside else head

    to.setattr(_sender.Sender, "_due_head", due_head)


@mutant("set aside|refused", "mumble")
def take_an_unreadable_answer_for_a_refusal(to: pytest.MonkeyPatch) -> None:
    """Set a message aside if its answer cannot be read."""

    def decode_answer(result: str) -> MessageBase:
        try:
            return said(result)
        except LinkLost:
            return ErrorMessage(message="What is this?")

    said = _said.decode_answer
    to.setattr(_session, "decode_answer", decode_answer)


@mutant("sent early|links within .* did not last|a suspect", "cut_at_size", life_s=120)
def forget_what_ended_earlier_links(to: pytest.MonkeyPatch) -> None:
    """Tell each new link the states as if no state had ever ended a link."""
    to.setattr(_again.Again, "rewind", lambda self, alone: self.__attrs_post_init__())


@mutant("are said to be set aside", "poison", "toggle_runs", life_s=120)
def count_samples_of_a_run_that_was_not_taken(to: pytest.MonkeyPatch) -> None:
    """Count samples as delivered although the aggregator throws them away."""
    to.setattr(_outbox.Outbox, "go_on", lambda self, knows_run: None)


@mutant("whose run was not taken", "one_handler_fails", "toggle_runs", seed=7, life_s=120)
def tell_of_the_open_run_once(to: pytest.MonkeyPatch) -> None:
    """Go on although the repeated beginning of the run was not taken."""

    async def repeat(self: _sender.Sender) -> None:
        if (run := self._outbox.open_run) is not None:
            self._send(run.sequence_number, run.body, lambda *_: None, 1)
            await self._all_answered()

    to.setattr(_sender.Sender, "_repeat_run_started", repeat)


@mutant("set aside", seed=6)
def set_aside_without_counting(to: pytest.MonkeyPatch) -> None:
    """Count a message as delivered when it is set aside."""
    drop = _outbox.Outbox._drop

    def miscounted(self: _outbox.Outbox, entries: Any, counted_as: str) -> None:
        drop(self, entries, "delivered" if counted_as == "set_aside" else counted_as)

    to.setattr(_outbox.Outbox, "_drop", miscounted)


@mutant(r"as message \d+ of a link")
def skip_the_introduction(to: pytest.MonkeyPatch) -> None:
    """Begin a new link with the messages that wait."""

    async def introduce(self: _sender.Sender) -> None:
        self._untold.clear()

    to.setattr(_sender.Sender, "introduce", introduce)


@mutant("refused", seed=5)
def do_not_repeat_run_started(to: pytest.MonkeyPatch) -> None:
    """Do not tell a new link which run is on."""
    introduced = _sender.Sender.introduce

    async def introduce(self: _sender.Sender) -> None:
        if em.RunStartedMsg in self._untold:
            self._untold.remove(em.RunStartedMsg)
        await introduced(self)

    to.setattr(_sender.Sender, "introduce", introduce)


@mutant(
    "was not taken|not stored",
    "one_handler_fails",
    "reset",
    "restart_aggregator",
    seed=5,
    life_s=90,
)
def go_on_without_the_units_description(to: pytest.MonkeyPatch) -> None:
    """Go on whatever the aggregator answers to UodInfo."""

    async def tell(self: _sender.Sender, kind: type[em.EngineMessage]) -> None:
        self._send_state(kind)
        await self._all_answered()

    to.setattr(_sender.Sender, "_tell", tell)


@mutant("of work was queued", "runs_without_a_link", seed=5, life_s=320)
def fill_a_window_that_ran_empty_at_once(to: pytest.MonkeyPatch) -> None:
    """Let as much leave after a run's end as was under way before it."""
    to.setattr(_window.Window, "due_at", lambda _, now: now)


@mutant("call was not answered", "bad_handlers", seed=2)
def wait_for_a_slow_handler(to: pytest.MonkeyPatch) -> None:
    """Give a handler 20 times as long before its command is answered."""
    carry_out = _commands.Commands.carry_out

    async def carry_out_patiently(
        self: _commands.Commands, message_json: object, answer_s: float
    ) -> MessageBase:
        return await carry_out(self, message_json, 20 * answer_s)

    to.setattr(_commands.Commands, "carry_out", carry_out_patiently)


@mutant("not the same", seed=4)
def repeat_run_started_with_another_start(to: pytest.MonkeyPatch) -> None:
    """Repeat RunStarted with the present time as the start of the run."""
    send = _sender.Sender._send

    def send_new(
        self: _sender.Sender, number: int, packed: bytes, judge: Any, patience: int
    ) -> None:
        body = unpack(packed)
        if self._untold and "started_tick" in body:
            body = re.sub(r'"started_tick":[0-9.]+', f'"started_tick":{trio.current_time()}', body)
        send(self, number, pack(body), judge, patience)

    to.setattr(_sender.Sender, "_send", send_new)


@mutant("refused|was unanswered", seed=9, life_s=60)
def let_states_overtake_events(to: pytest.MonkeyPatch) -> None:
    """Send a run log before the beginning of its run."""
    to.setattr(_outbox.Outbox, "has_run_events", property(lambda _: False))


@mutant("the same")
def send_states_again_and_again(to: pytest.MonkeyPatch) -> None:
    """Send a state although it has not changed."""
    send = _sender.Sender._send_state

    def send_state(
        self: _sender.Sender, kind: type[em.EngineMessage], *, alone: bool = False
    ) -> None:
        self._news._states[kind].heard = None
        send(self, kind, alone=alone)

    to.setattr(_sender.Sender, "_send_state", send_state)


@mutant("was not sent", seed=6)
def tell_a_new_link_only_changed_states(to: pytest.MonkeyPatch) -> None:
    """Tell a new link only the states that have changed since the last link."""
    known: dict[int, dict[type[em.EngineMessage], _news._State]] = {}
    init = _sender.Sender.__init__

    def init_with(self: _sender.Sender, session: Session, outbox: Any, *rest: Any) -> None:
        init(self, session, outbox, *rest)
        states = self._news._states = known.setdefault(id(outbox), self._news._states)
        for state in states.values():
            state.is_taken = False
        for kind in (em.UodInfoMsg, em.MethodMsg):
            states[kind] = _news._State()

    to.setattr(_sender.Sender, "__init__", init_with)


@mutant("shown", seed=4)
def never_show_a_change(to: pytest.MonkeyPatch) -> None:
    """Send each state only once over each link."""
    send = _sender.Sender._send_state

    def send_state(
        self: _sender.Sender, kind: type[em.EngineMessage], *, alone: bool = False
    ) -> None:
        if self._news._states[kind].heard is None:
            send(self, kind, alone=alone)

    to.setattr(_sender.Sender, "_send_state", send_state)


@mutant("overtook|unanswered|the same")
def run_two_senders_on_one_link(to: pytest.MonkeyPatch) -> None:
    """Let two senders empty one outbox over one link."""
    steady = _sender.Sender.steady

    async def twice(self: _sender.Sender) -> None:
        other = _sender.Sender(self._session, self._outbox, self._bell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(steady, other)
            await steady(self)

    to.setattr(_sender.Sender, "steady", twice)


@mutant("at the aggregator", "hang", "refused", "slow_handler", seed=32, life_s=120)
def have_no_window(to: pytest.MonkeyPatch) -> None:
    """Let any number of samples be unanswered at once."""
    to.setattr(_window.Window, "limit", property(lambda _: 10_000))
    to.setattr(_window.Window, "due_at", lambda _, now: now)


@mutant("apart on a wide path|shown was", "moved", seed=3, life_s=120)
def have_a_window_of_one(to: pytest.MonkeyPatch) -> None:
    """Let only one sample be unanswered at once, however distant the aggregator is."""
    to.setattr(_window.Window, "limit", property(lambda _: 1))


@mutant("apart on a wide path", "moved", seed=3, life_s=120)
def keep_the_shortest_distance_ever_measured(to: pytest.MonkeyPatch) -> None:
    """Mistake the time that a longer path takes for a queue at the aggregator."""
    note = _window.Window._note_alone

    def note_alone(self: _window.Window, now: float, took_s: float) -> None:
        least_s = min(self.distance_s, took_s)
        note(self, now, took_s)
        self.distance_s = least_s

    to.setattr(_window.Window, "_note_alone", note_alone)


@mutant("apart on a wide path", "moved", "restless_run_log", seed=35, life_s=120)
def never_measure_the_distance_again(to: pytest.MonkeyPatch) -> None:
    """Let the window shrink, however old the last measurement of the distance is."""
    to.setattr(_window, "FRESH_S", math.inf)


@mutant("took the line", "thin_line", "restless_run_log", life_s=90)
def let_states_take_the_whole_path(to: pytest.MonkeyPatch) -> None:
    """Send states as they change, however little of the path they leave to samples."""
    to.setattr(_news, "STATE_REST", 0)


@mutant("was not sent|shown was", "slow_new_link", seed=3, life_s=60)
def let_samples_go_first(to: pytest.MonkeyPatch) -> None:
    """Send no state and no notice while a sample waits."""
    to.setattr(_sender, "SAMPLES_IN_A_ROW", math.inf)


@mutant("waits for notices", "notices_fail", "toggle_runs", life_s=60)
def hold_up_a_run_by_a_notice_that_fails(to: pytest.MonkeyPatch) -> None:
    """Let the end of a run wait for each notice, however often that has failed."""
    to.setattr(_line, "PASSED_AFTER", math.inf)


# Where messages wait


@mutant("after the last fault|refused|are lost|not delivered")
def forget_what_was_in_flight(to: pytest.MonkeyPatch) -> None:
    """Do not put back the messages that were in flight when a link broke."""
    to.setattr(_outbox.Outbox, "rewind", lambda _, beside: None)


@mutant("never arrived|are lost|not delivered|refused", seed=3, life_s=120)
def take_a_clean_close_for_delivery(to: pytest.MonkeyPatch) -> None:
    """Drop what was in flight when the aggregator closed the connection in order."""
    note = _tasks.Connector._note_failure

    def note_failure(self: _tasks.Connector, failure: Any) -> None:
        note(self, failure)
        if "closed the connection" in str(failure):
            for entry in list(self._outbox._in_flight.values()):
                self._outbox.delivered(entry)

    to.setattr(_tasks.Connector, "_note_failure", note_failure)


@mutant("was sent after|arrived after")
def put_back_at_the_tail(to: pytest.MonkeyPatch) -> None:
    """Send what was in flight after newer messages."""
    to.setattr(_outbox.Outbox, "_put_back", lambda self, entries: self._line.extend(entries))


def _at_the_bound(
    to: pytest.MonkeyPatch, give_up: Callable[[list[_outbox.Entry]], list[_outbox.Entry]]
) -> None:
    def thin(self: _outbox.Outbox) -> bool:
        given_up = give_up([entry for entry in self._line if not entry.tries])
        for entry in given_up:
            self._line.remove(entry)
            self._thinnable -= not entry.is_event
            self._journal.gone(entry)
        self._drop(given_up, "thinned")
        self.warnings.tell(logging.WARNING, "every second sample is given up")
        return bool(given_up)

    to.setattr(_outbox.Outbox, "_thin", thin)


@mutant("events never arrived|events are lost|refused|not delivered", life_s=120)
def drop_events_at_the_bound(to: pytest.MonkeyPatch) -> None:
    """Thin events as well as samples at the bound."""
    _at_the_bound(to, lambda line: line[: len(line) // 2 : 2])


@mutant("in a row", seed=124, life_s=120)
def drop_the_oldest_half_at_the_bound(to: pytest.MonkeyPatch) -> None:
    """Give up the oldest half of the samples at the bound."""

    def oldest_half(line: list[_outbox.Entry]) -> list[_outbox.Entry]:
        samples = [entry for entry in line if not entry.is_event]
        return samples[: len(samples) // 2]

    _at_the_bound(to, oldest_half)


@mutant("are lost|never arrived|with 0 messages waiting|not delivered", seed=4)
def lose_an_event_now_and_then(to: pytest.MonkeyPatch) -> None:
    """Lose every fifth notification on its way into an outbox in memory."""
    enter, events = _outbox.Outbox.enter, [0]

    def enter_most(
        self: _outbox.Outbox, message: em.EngineMessage | _outbox.Prepared
    ) -> _outbox.Entry | None:
        ready = message if isinstance(message, _outbox.Prepared) else self.prepare(message)
        is_one = isinstance(ready.message, em.WebPushNotificationMsg)
        events[0] += is_one
        lost = is_one and not events[0] % 5
        return enter(self, ready) if not lost or self.is_durable else None

    to.setattr(_outbox.Outbox, "enter", enter_most)


@mutant("over its bound", "refused", "black_hole", "tag_storm", seed=23, life_s=90)
def have_no_bound(to: pytest.MonkeyPatch) -> None:
    """Let the outbox grow without end."""
    to.setattr(_outbox.Outbox, "_keep_bound", lambda _: None)


def _count_thinned(to: pytest.MonkeyPatch, count: Callable[[dict[str, int]], None]) -> None:
    drop = _outbox.Outbox._drop

    def miscounted(self: _outbox.Outbox, entries: Any, counted_as: str) -> None:
        drop(self, entries, counted_as)
        if counted_as == "thinned":
            count(self._counts)

    to.setattr(_outbox.Outbox, "_drop", miscounted)


@mutant("accounted", life_s=60)
def count_one_too_many(to: pytest.MonkeyPatch) -> None:
    """Count one sample too many with each thinning."""

    def count(counts: dict[str, int]) -> None:
        counts["thinned"] += 1

    _count_thinned(to, count)


@mutant("given up|are lost", life_s=120)
def thin_without_counting(to: pytest.MonkeyPatch) -> None:
    """Count thinned samples as delivered."""

    def count(counts: dict[str, int]) -> None:
        counts["delivered"] += counts["thinned"]
        counts["thinned"] = 0

    _count_thinned(to, count)


@mutant("outbox knows|refused|before it is not delivered", seed=21, life_s=120)
def leave_the_run_open_after_a_crash(to: pytest.MonkeyPatch) -> None:
    """Do not end the run that was on when the process died."""
    to.setattr(_outbox.Outbox, "close_run", lambda _: None)


# The disk


@mutant("outbox knows|was answered|never arrived|with the number", seed=29, life_s=120)
def do_not_sync(to: pytest.MonkeyPatch) -> None:
    """Let a commit return when the data is only in the operating system's memory."""
    prepare = _opening._prepare

    def prepare_unsafely(db: Any, *, is_new: bool) -> None:
        prepare(db, is_new=is_new)
        db.execute("PRAGMA synchronous = NORMAL")

    to.setattr(_opening, "_prepare", prepare_unsafely)


@mutant(
    "outbox knows|never arrived|was answered|not delivered",
    "burst",
    "kill_process",
    "power_cut",
    "toggle_runs",
    seed=37,
    life_s=120,
)
def call_an_event_kept_before_it_is_on_disk(to: pytest.MonkeyPatch) -> None:
    """Write an event half a second later, together with the samples."""
    to.setattr(DurableOutbox, "secure", _outbox.Outbox.secure)


@mutant("was answered|never arrived|was not sent", seed=12, life_s=120)
def commit_seldom(to: pytest.MonkeyPatch) -> None:
    """Write samples to the disk once a minute."""
    to.setattr(_tasks, "COMMIT_S", 60)


@mutant("was answered", seed=12, life_s=90)
def forget_what_was_delivered(to: pytest.MonkeyPatch) -> None:
    """Leave delivered messages on the disk."""
    to.setattr(_file.OutboxFile, "_delete", lambda *_: None)


@mutant("with the number", seed=5, life_s=60)
def use_numbers_twice(to: pytest.MonkeyPatch) -> None:
    """Start the sequence numbers again from the beginning after a crash."""
    found = _facts.found
    to.setattr(_durable, "found", lambda facts, path: found({**facts, "numbers": 0}, path))


@mutant("Trio's thread waits", "slow_disk", "hanging_disk", "burst", life_s=60)
def write_in_trios_thread(to: pytest.MonkeyPatch) -> None:
    """Let Trio's thread wait for the disk with every event."""
    to.setattr(DurableOutbox, "_want_commit", DurableOutbox.commit)


@mutant("s old|no sample|not stored", "hanging_disk", "slow_disk", "burst", seed=2)
def wait_for_a_disk_that_hangs(to: pytest.MonkeyPatch) -> None:
    """Let nothing go out before it is on the disk, however long that takes."""
    to.setattr(DurableOutbox, "_release_if_degraded", lambda _: False)


@mutant("a gigabyte", "long_run_log", seed=52, life_s=60)
def write_the_run_log_with_every_commit(to: pytest.MonkeyPatch) -> None:
    """Write the run log to the disk with every commit."""
    to.setattr(_facts.KnownFacts, "_due", lambda _, states, now: states)


@mutant("outbox knows|was answered|never arrived|with the number", "spoilt_log", "burst")
def hide_damage_to_the_log(to: pytest.MonkeyPatch) -> None:
    """Read a spoilt log as far as it can be read, and do not report the damage."""
    to.setattr(_opening, "_damage_of_log", lambda _: None)


@mutant("kept under", "rename_host", "refused", "kill_aggregator")
def drop_what_waits_under_the_old_name(to: pytest.MonkeyPatch) -> None:
    """Throw away what waits when the computer has been renamed."""
    keep = _apart.keep_apart

    def keep_none(path: Any, old: str, kept: Any, connect: Any) -> Any:
        return keep(path, old, evolve(kept, waiting=[]), connect)

    to.setattr(_durable, "keep_apart", keep_none)


@mutant("had been logged after it", "noisy_log", "reset", "refused")
def send_each_error_by_itself(to: pytest.MonkeyPatch) -> None:
    """Never add an entry to an error log that already waits."""
    to.setattr(_outbox.Outbox, "_merge", lambda *_: None)


@mutant("entries were kept", "flood_of_errors", life_s=60)
def keep_the_latest_of_many_errors(to: pytest.MonkeyPatch) -> None:
    """Leave out the first errors of many, which are often the cause of the others."""

    def latest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        more = len(entries) - _shrinking.LOG_ENTRIES_MAX
        text = {"message": _shrinking.LEFT_OUT.format(more)}
        return entries if more <= 0 else [{**entries[0], **text}, *entries[more:]]

    to.setattr(_shrinking, "_within_bounds", latest)


@mutant("nobody was told that the aggregator was away", "long_outage", life_s=650)
def say_nothing_of_an_outage(to: pytest.MonkeyPatch) -> None:
    """Keep a long outage to the computer's log."""
    to.setattr(_away, "SUMMARY_S", math.inf)


@mutant("nobody was told that the engine blocks", "blocking_call")
def say_nothing_of_a_call_that_blocks(to: pytest.MonkeyPatch) -> None:
    """Let the engine hold Trio's thread, and do not say whose fault it is."""
    to.setattr(_mistakes, "BLOCKED_S", math.inf)


@mutant("nobody was told", "poison", "refused", "black_hole", seed=2)
def warn_nobody(to: pytest.MonkeyPatch) -> None:
    """Tell what is given up only in the computer's own log."""
    to.setattr(_warnings.Warnings, "tell", lambda *_, **__: None)


@mutant("more than 16 MiB", "huge_archive")
def send_what_is_too_big(to: pytest.MonkeyPatch) -> None:
    """Send an end of a run however big it is."""
    to.setattr(_base, "is_too_big", lambda _: False)
    to.setattr(_outbox.Entry, "is_too_big", property(lambda _: False))


@mutant("never made|refused", "toggle_in_reading")
def queue_tags_of_the_previous_run(to: pytest.MonkeyPatch) -> None:
    """Queue tags although a run began or ended while they were read."""

    def take(self: _intake.Intake, *, whole: bool) -> bool:
        run_id, builder = self.run_id, self._builder
        snapshot = builder.create_tag_updates_snapshot_msg
        tags = snapshot() if whole else builder.create_tag_updates_msg(run_id)
        if tags is not None:
            self._outbox.put(evolve(tags, run_id=run_id))
        return True

    to.setattr(_intake.Intake, "_take_tags", take)


# States


@mutant("of Trio's time", "costly_run_log")
def make_run_logs_whatever_they_cost(to: pytest.MonkeyPatch) -> None:
    """Make a run log with each sample, however expensive it is."""
    to.setattr(_intake, "RUN_LOG_SHARE", math.inf)


@mutant("no run log was made", "costly_run_log", "toggle_runs", seed=10, life_s=120)
def make_run_logs_too_seldom(to: pytest.MonkeyPatch) -> None:
    """Let minutes pass before an expensive run log is made again."""
    to.setattr(_intake, "RUN_LOG_SHARE", 0.001)
    to.setattr(_intake, "RUN_LOG_S_MAX", math.inf)


# Samples


@mutant("s old", "thin_line", seed=2)
def sample_as_often_on_a_thin_path(to: pytest.MonkeyPatch) -> None:
    """Take samples at the steady rate although others wait."""
    to.setattr(_ticker.Ticker, "_keeps_up", lambda _: True)


@mutant("refused")
def forget_the_run(to: pytest.MonkeyPatch) -> None:
    """Leave the id of the run out of every sample."""
    prepare = _outbox.Outbox.prepare

    def without_run(self: _outbox.Outbox, message: em.EngineMessage) -> _outbox.Prepared:
        if isinstance(message, em.TagsUpdatedMsg):
            message = evolve(message, run_id=None)
        return prepare(self, message)

    to.setattr(_outbox.Outbox, "prepare", without_run)


@mutant("no sample")
def sample_only_when_connected(to: pytest.MonkeyPatch) -> None:
    """Take no samples while there is no link."""
    sample = _ticker.Ticker._sample

    def when_linked(self: _ticker.Ticker) -> None:
        if self._interval_ticks == self._in_ticks(self._timing.steady_s):
            sample(self)

    to.setattr(_ticker.Ticker, "_sample", when_linked)


@mutant("no sample")
def sample_only_when_answered(to: pytest.MonkeyPatch) -> None:
    """Take no samples while an answer is missing."""
    sample = _ticker.Ticker._sample

    def when_answered(self: _ticker.Ticker) -> None:
        if not self._intake._outbox._in_flight:
            sample(self)

    to.setattr(_ticker.Ticker, "_sample", when_answered)


@mutant("no sample", seed=2)
def sample_slowly_when_connected(to: pytest.MonkeyPatch) -> None:
    """Keep sampling at the data-log rate when the link is back."""

    @contextmanager
    def linked(self: _ticker.Ticker) -> Generator[None, None, None]:
        yield

    to.setattr(_ticker.Ticker, "linked", linked)


@mutant("no sample")
def ignore_the_data_log_interval(to: pytest.MonkeyPatch) -> None:
    """Sample every 5 s in an outage although the unit logs every second."""
    to.setattr(_ticker.Ticker, "set_data_log_interval", lambda *_: None)


@mutant("never arrived|are lost", seed=2)
def lose_a_sample_now_and_then(to: pytest.MonkeyPatch) -> None:
    """Lose every fiftieth sample on its way into the outbox."""
    enter, samples = _outbox.Outbox.enter, [0]

    def enter_most(
        self: _outbox.Outbox, message: em.EngineMessage | _outbox.Prepared
    ) -> _outbox.Entry | None:
        made = message.message if isinstance(message, _outbox.Prepared) else message
        samples[0] += isinstance(made, em.TagsUpdatedMsg)
        is_lost = isinstance(made, em.TagsUpdatedMsg) and not samples[0] % 50
        return None if is_lost else enter(self, message)

    to.setattr(_outbox.Outbox, "enter", enter_most)


@mutant("the runner raised", "bug", seed=1)
def let_a_builder_end_the_runner(to: pytest.MonkeyPatch) -> None:
    """Let through what a message builder raises."""
    to.setattr(_intake, "FAILS", ())


@mutant("nobody was told that a message could not be made", "bug", seed=1)
def hide_that_a_builder_fails(to: pytest.MonkeyPatch) -> None:
    """Go on without a message, and tell nobody."""
    to.setattr(_mistakes.Complaints, "note_failure", lambda *_: None)


@mutant("events are lost", "bug", seed=8)
def lose_an_end_whose_builder_fails(to: pytest.MonkeyPatch) -> None:
    """Leave out the beginning or the end of a run that the engine cannot make."""
    tell = _intake.Intake.tell
    to.setattr(_intake.Intake, "tell", lambda self, *what: tell(self, *what) or True)


# The task tree and its states


@mutant("went from")
def skip_a_state(to: pytest.MonkeyPatch) -> None:
    """Go from Reconnecting straight to Reconnected."""
    to.setattr(_tasks, "LATER", evolve(_tasks.LATER, backlog=None))
    edges = {**_states.EDGES, "Reconnecting": ("Reconnected", "Failed", "Stopped")}
    to.setattr(_states, "EDGES", edges)


@mutant("the state was|went from")
def hide_a_change_of_state(to: pytest.MonkeyPatch) -> None:
    """Do not tell observers about Disconnected."""
    enter = _states.StateMachine.enter

    async def enter_quietly(self: _states.StateMachine, state: Any) -> None:
        if state == "Disconnected":
            self.current = state
        else:
            await enter(self, state)

    to.setattr(_states.StateMachine, "enter", enter_quietly)


@mutant("had waited")
def say_reconnected_too_early(to: pytest.MonkeyPatch) -> None:
    """Enter Reconnected while the backlog still waits."""

    async def drain(self: _sender.Sender) -> None:
        pass

    to.setattr(_sender.Sender, "drain", drain)


@mutant("left waiting", seed=2)
def do_not_flush(to: pytest.MonkeyPatch) -> None:
    """Do not send what still waits when the runner is stopped."""

    async def flush(self: _tasks.Connector, sender: _sender.Sender, session: Session) -> None:
        async with self._states.alive("Stopped"):
            await session.aclose()

    to.setattr(_tasks.Connector, "_flush", flush)


@mutant("tasks were left")
def leave_a_task_running(to: pytest.MonkeyPatch) -> None:
    """With each link, start a task that outlives the runner."""
    introduce = _sender.Sender.introduce

    async def leave(self: _sender.Sender) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        await introduce(self)

    to.setattr(_sender.Sender, "introduce", leave)


@mutant("streams were left|call was not answered")
def leave_a_stream_open(to: pytest.MonkeyPatch) -> None:
    """Leave the stream of a link open."""

    async def aclose_forcefully(stream: trio.abc.Stream) -> None:
        await trio.lowlevel.checkpoint()

    to.setattr(trio, "aclose_forcefully", aclose_forcefully)


@mutant("no dial")
def wait_far_too_long(to: pytest.MonkeyPatch) -> None:
    """Wait up to 5 minutes before a dial."""
    wait = _backoff.Backoff.wait_s
    to.setattr(_backoff.Backoff, "wait_s", lambda self, *failed: 30 * wait(self, *failed))


# The session


async def sleep_for_ever(_: _session.RpcSession) -> None:
    """Replace a task of the session by one that does nothing."""
    await trio.sleep_forever()


@mutant("lived", seed=40, life_s=120)
def wait_for_ever_for_an_answer(to: pytest.MonkeyPatch) -> None:
    """Never end a link whose answer is missing."""
    to.setattr(_session.RpcSession, "_watch", sleep_for_ever)


@mutant("lived", seed=6, life_s=60)
def have_neither_deadlines_nor_pings(to: pytest.MonkeyPatch) -> None:
    """Set no deadline for a call, and send no pings."""
    to.setattr(_session.RpcSession, "_watch", sleep_for_ever)
    to.setattr(_session.RpcSession, "_keepalive", sleep_for_ever)


@mutant("call was not answered", seed=2)
def answer_late(to: pytest.MonkeyPatch) -> None:
    """Answer a command after 2.1 s; the aggregator waits for 2 s."""
    carry_out = _session.RpcSession._carry_out

    async def carry_out_late(self: _session.RpcSession, request: Any) -> None:
        await trio.sleep(2.1)
        await carry_out(self, request)

    to.setattr(_session.RpcSession, "_carry_out", carry_out_late)


@mutant("the end of a process took", "stuck_handlers", "stop_process")
def wait_for_every_handler_at_the_end(to: pytest.MonkeyPatch) -> None:
    """Do not end before every handler has ended."""
    to.setattr(_commands, "END_S", math.inf)


@mutant("given up", "slow_archive_line")
def count_the_time_for_an_answer_from_the_call(to: pytest.MonkeyPatch) -> None:
    """Give a message and its answer 10 s together, however long the message takes to leave."""
    note = _session.RpcSession._note_call

    def note_call(self: _session.RpcSession, *arguments: Any) -> Any:
        call_id, call = note(self, *arguments)
        call.has_left = True
        return call_id, call

    to.setattr(_session.RpcSession, "_note_call", note_call)


@mutant("a ping of the aggregator's", "slow_archive_line", seed=5, life_s=60)
def let_pings_wait_for_a_large_message(to: pytest.MonkeyPatch) -> None:
    """Answer no ping between two pieces of a message."""
    send = _framed.FramedStream.send_all

    async def send_all(self: _framed.FramedStream, data: bytes | bytearray | memoryview) -> None:
        async with self._flushing:
            await send(self, data)

    to.setattr(_framed.FramedStream, "send_all", send_all)


@mutant("did not last", "short_lives", seed=2, life_s=90)
def restart_the_backoff_with_each_link(to: pytest.MonkeyPatch) -> None:
    """Consider every link healthy."""
    to.setattr(_tasks, "LIVED_S", -1)


@mutant("call was not answered", "bad_handlers", seed=2)
def answer_without_a_deadline(to: pytest.MonkeyPatch) -> None:
    """Answer a command when its handler has ended, however long that takes."""

    async def carry_out(self: _commands.Commands, message: object, _: float) -> MessageBase:
        return await self._dispatch(message)

    to.setattr(_commands.Commands, "carry_out", carry_out)


def violation_of(seed: int, kinds: tuple[str, ...] | None, life_s: float) -> str | None:
    """Return the violation that the simulation of a seed finds in a life of `life_s` (s), or None.

    Only these kinds of faults happen in it, or all usual ones if `kinds` is None.
    """
    with pytest.MonkeyPatch.context() as to:
        known = FAULTS | RARE_FAULTS
        to.setattr(_simulate, "FAULTS", {kind: known[kind] for kind in kinds or USUAL})
        return _simulate.simulate(seed, life_s).violation


def find(name: str, first: int = 1) -> tuple[int, str]:
    """Return the first seed that finds a bug, and the violation.

    Begin at the seed `first`, go on to the last and then try those before `first`. Raises
    LookupError if no seed finds the bug.
    """
    mutant = MUTANTS[name]
    with pytest.MonkeyPatch.context() as to:
        mutant.patch(to)
        for seed in chain(range(first, SEEDS + 1), range(1, first)):
            violation = violation_of(seed, mutant.kinds, mutant.life_s)
            if violation is not None:
                return seed, violation
    raise LookupError(name)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_is_found(name: str) -> None:
    """Each bug is found within 200 seeds, by the rule that it breaks."""
    mutant = MUTANTS[name]
    assert re.search(mutant.rule, find(name, mutant.seed)[1])


@pytest.mark.parametrize(
    ("seed", "kinds", "life_s"),
    sorted({(found.seed, found.kinds, found.life_s) for found in MUTANTS.values()}, key=str),
)
def test_without_a_bug_the_same_seeds_pass(
    seed: int, kinds: tuple[str, ...] | None, life_s: float
) -> None:
    """The seeds that find the bugs find nothing in the runner without them."""
    assert violation_of(seed, kinds, life_s) is None


def tell_where(name: str) -> str:
    """Return where a bug is found first, and how that differs from what its mutant says."""
    mutant = MUTANTS[name]
    try:
        seed, violation = find(name)
    except LookupError:
        return f"{name} IS NOT FOUND"
    moved = "" if seed == mutant.seed else f" (was {mutant.seed})"
    other = "" if re.search(mutant.rule, violation) else " BY ANOTHER RULE"
    return f"{name} seed={seed}{moved}{other}: {violation}"


if __name__ == "__main__":  # Find the seeds of all bugs anew, or of those that are named.
    for name in sys.argv[1:] or MUTANTS:
        sys.stdout.write(f"{tell_where(name)}\n")
        sys.stdout.flush()
