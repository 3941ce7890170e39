"""The way into the outbox: events as they happen, samples and states when they are asked for."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio
from attrs import define, evolve, field

from trio_runner._engine import MessageBuilder
from trio_runner._mistakes import FAILS, Complaints, of_kind, seconds
from trio_runner._outbox import RUN_EVENTS, Lock, Outbox, Prepared
from trio_runner._warnings import UnitWarning
from trio_runner.protocol import encode_json, kind_of
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=em.EngineMessage)

RUN_LOG_SHARE = 0.1
"""The share of Trio's time that making run logs may take: one of 4,000 lines can take a second."""

RUN_LOG_CHARACTERS_S = 500_000
"""How much of run logs a link is told at most (characters/s). An aggregator, which has other
engines, works for a second on some 10 million."""

RUN_LOG_S_MAX = 50
"""The longest pause between two run logs (s), whatever they cost. With the wait for a sample it
stays below a minute."""


def log_of(warnings: list[UnitWarning], now: float) -> em.ErrorLogMsg:
    """Return the error log with these warnings; `now` is in seconds since the epoch."""
    entries = [
        mdl.ErrorLogEntry(message=told.text, created_time=now, severity=told.level)
        for told in warnings
    ]
    return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries))


def sound_registration(made: em.RegisterEngineMsg) -> em.RegisterEngineMsg:
    """Return a registration that can be sent; a dial must not be the first to find out.

    Raises TypeError.
    """
    encode_json(of_kind(em.RegisterEngineMsg, made))
    return made


@define(eq=False)
class Intake:
    """The part that asks the engine for messages and queues them, each stamped with its run.

    A run begins and ends in the engine's thread; samples are taken in Trio's. "Is it still the same
    run? Queue it" is one step under a lock, so that a sample stands on the right side of RunStarted
    and RunStopped. The engine is never asked under the lock, since it may hold a lock of its own
    when it tells of a run. Nothing is encoded under the lock except tags that are posted, which
    have to know their run: the end of a run may take seconds.

    If the engine cannot make a message, its people are told, and everything goes on: with the last
    state that it could make, or without the sample. The next sample then holds all tags.
    """

    _builder: MessageBuilder
    _outbox: Outbox
    _clock: Callable[[], float] = time.time
    """Returns the seconds since the epoch."""
    run_id: str | None = field(default=None, init=False)
    _runs: int = field(default=0, init=False)
    """How often a run began or ended."""
    _run_log_due: float = field(default=-math.inf, init=False)
    _lock: Lock = field(init=False)
    _has_missed_tags: bool = field(default=False, init=False)
    """Whether the engine may have told changes of tags that were not queued."""
    _complaints: Complaints = field(init=False)

    @_lock.default
    def _new_lock(self) -> Lock:
        return self._outbox.threads.Lock()

    def __attrs_post_init__(self) -> None:
        self._complaints = Complaints(lambda: self._outbox.warnings)

    def post(self, message: em.EngineMessage) -> None:
        """Queue a message; a run event also changes the run to which later samples belong.

        Tags without a run belong to the one that is on. Raises ValueError if the start of a run is
        not in seconds, and what `Outbox.put` raises.
        """
        self._enter(message, self._ready(message))

    def tell(
        self,
        kind: type[MessageT],
        create: Callable[..., MessageT],
        *arguments: object,
    ) -> bool:
        """Queue the event that the engine makes, as `post` does; return False if it fails to."""
        try:
            message = of_kind(kind, create(*arguments))
            ready = self._ready(message)
        except FAILS as error:
            self._complaints.note_failure(create, error)
            return False
        self._enter(message, ready)
        return True

    def _ready(self, message: em.EngineMessage) -> em.EngineMessage | Prepared:
        if isinstance(message, em.RunStartedMsg):
            seconds("started_tick of RunStartedMsg", message.started_tick)
        if isinstance(message, em.TagsUpdatedMsg):
            return self._sound(message)
        return self._outbox.prepare(message)

    def _enter(self, message: em.EngineMessage, ready: em.EngineMessage | Prepared) -> None:
        with self._lock:
            if isinstance(ready, em.TagsUpdatedMsg) and ready.run_id is None:
                ready = evolve(ready, run_id=self.run_id)
            event = self._outbox.enter(ready)
            if isinstance(message, RUN_EVENTS):
                self.run_id = message.run_id if isinstance(message, em.RunStartedMsg) else None
                self._runs += 1
                self._run_log_due = -math.inf
        self._outbox.secure(event)  # may wait for a disk: the ticker must not wait for us

    @property
    def samples_waiting(self) -> int:
        """How many samples have never been sent."""
        return self._outbox.samples_waiting

    def take_tags(self, *, whole: bool) -> None:
        """Queue the tags that changed, or all of them if `whole`."""
        whole = whole or self._has_missed_tags
        while not self._take_tags(whole=whole):
            whole = True  # the run changed, and the engine does not tell those changes twice

    def take_errors(self) -> None:
        """Queue the errors that the engine logged, and the warnings of the runner."""
        self._take(em.ErrorLogMsg, self._builder.create_error_log_msg)
        now = self._clock()
        warnings = self._outbox.warnings.take(now)
        if warnings:
            self._outbox.put(log_of(warnings, now))

    def _take_tags(self, *, whole: bool) -> bool:
        """Queue the tags; return False if a run began or ended while the engine was asked."""
        run_id, runs = self.run_id, self._runs
        create: Callable[[], em.TagsUpdatedMsg | None]
        if whole:
            create = self._builder.create_tag_updates_snapshot_msg
        else:
            create = partial(self._builder.create_tag_updates_msg, run_id)
        try:
            ready = self._ready_tags(self._ask(create), run_id)
        except FAILS as error:
            self._complaints.note_failure(create, error)
            self._has_missed_tags = True
            # Those that changed are better than none.
            return self._take_tags(whole=False) if whole else True
        with self._lock:
            if runs != self._runs:
                return False
            self._has_missed_tags = self._has_missed_tags and not whole
            if ready is not None:
                self._outbox.enter(ready)  # a sample needs no `secure`
            return True

    def _ready_tags(self, made: em.TagsUpdatedMsg | None, run_id: str | None) -> Prepared | None:
        """Return the tags, stamped with the run; None if there are none."""
        if made is None:
            return None
        tags = self._sound(of_kind(em.TagsUpdatedMsg, made))
        if not tags.tags:
            return None
        return self._outbox.prepare(tags if tags.run_id == run_id else evolve(tags, run_id=run_id))

    def take_states(self) -> None:
        """Queue the state messages that change while the engine works."""
        self._take(em.MethodMsg, self._builder.create_method_msg)
        self._take(em.ControlStateMsg, self._builder.create_control_state_msg)
        self._take(em.MethodStateMsg, self._builder.create_method_state_msg)
        if trio.current_time() >= self._run_log_due:
            self._take_run_log()

    def _take_run_log(self) -> None:
        """Queue the run log, and set when the next is due.

        That depends on what this one costs here and at the aggregator. The last run log of a run is
        a part of its end.
        """
        run_id, runs, began = self.run_id, self._runs, trio.current_time()
        ready = self._ready_run_log(run_id)
        with self._lock:
            if runs == self._runs:
                told = self._queue_state(ready) if ready is not None else 0
                cost_s = trio.current_time() - began
                rest_s = max(cost_s / RUN_LOG_SHARE, told / RUN_LOG_CHARACTERS_S)
                self._run_log_due = began + min(rest_s, RUN_LOG_S_MAX)

    def _ready_run_log(self, run_id: str | None) -> Prepared | None:
        """Return the run log, or that of the commands that wait for a run; None without one."""
        create: Callable[[], em.EngineMessage | None]
        if run_id is not None:
            kind: type[em.EngineMessage] = em.RunLogMsg
            create = partial(self._builder.create_runlog_msg, run_id)
        else:
            kind, create = em.QueuedRunLogMsg, self._builder.create_queued_runlog_msg
        try:
            log = create()
            if log is None and kind is em.QueuedRunLogMsg:
                if self._outbox.state(kind) is None:
                    return None
                # The page must not go on showing commands that have gone. If none waited, there is
                # nothing to tell: an aggregator begins with none, and older ones know no queue.
                log = em.QueuedRunLogMsg(runlog=mdl.RunLog(lines=[]))
            return self._outbox.prepare(of_kind(kind, log))
        except FAILS as error:
            self._complaints.note_failure(create, error)
            return None

    def _queue_state(self, ready: Prepared) -> int:
        """Queue a state; return how many characters are to be told, 0 if it has not changed."""
        before = self._outbox.state(kind_of(ready.message))
        self._outbox.enter(ready)  # a state needs no `secure`
        return 0 if ready.text == before else len(ready.text)

    def introduce(self) -> em.UodInfoMsg | None:
        """Queue what a new link must tell; return the unit's description, or None if it fails."""
        uod_info = self.describe()
        self.take_states()
        return uod_info

    def describe(self) -> em.UodInfoMsg | None:
        """Queue the description of the unit; return it, or None if the engine cannot make it.

        The outbox keeps it, for people who find the unit's messages and need to know what it is.
        """
        return self._take(em.UodInfoMsg, self._builder.create_uod_info)

    def _take(self, kind: type[MessageT], create: Callable[[], MessageT | None]) -> MessageT | None:
        """Queue what the engine makes and return it; None if it has nothing to tell or fails."""
        try:
            made = self._ask(create)
            if made is None and kind is em.ErrorLogMsg:
                return None  # there are no errors
            ready = self._outbox.prepare(of_kind(kind, made))
        except FAILS as error:
            self._complaints.note_failure(create, error)
            return None
        self._outbox.secure(self._outbox.enter(ready))
        return made

    def register(self) -> em.RegisterEngineMsg | None:
        """Return the engine's registration, or None if it fails to make it."""
        create = self._builder.create_register_engine_msg
        try:
            return sound_registration(self._ask(create))
        except FAILS as error:
            self._complaints.note_failure(create, error)
            return None

    def _ask(self, create: Callable[[], T]) -> T:
        """Return what the engine makes; tell if that holds up Trio's thread.

        Run logs are not made through this: long ones take their time, and are made less often
        instead.
        """
        began = trio.current_time()
        try:
            return create()
        finally:
            self._complaints.note_call(create, trio.current_time() - began)

    def _sound(self, message: em.TagsUpdatedMsg) -> em.TagsUpdatedMsg:
        """Return the message without the tags that would cost the whole message."""
        if kind_of(message) is not type(message):  # foreign: its maker has checked it
            return message
        sound = self._complaints.sound(message.tags)
        return message if len(sound) == len(message.tags) else evolve(message, tags=sound)
