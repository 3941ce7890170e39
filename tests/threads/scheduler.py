"""A scheduler that runs threads one at a time, and chooses by a seed at every lock, wait and write.

The threads are real. Each waits at its own gate until the scheduler lets it go on. The thread with
the highest priority goes on. Priorities are drawn, and at a few steps, which are drawn too, the
running thread falls below all others. Few such changes find most races (Burckhardt and others, "A
randomized scheduler with probabilistic guarantees of finding bugs", 2010).

Time is virtual. It passes only when all threads wait, up to the first moment at which a wait ends.
"""

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from types import TracebackType
from typing import Any

from attrs import define, field

STEPS = 300
"""The changes of priority fall within this many steps."""

GATE_S = 60
"""After this time without the schedule's end, a thread hangs for good (s of real time)."""


class Deadlock(Exception):
    """Raised when all threads wait for one another, or when one hangs."""


class Stopped(BaseException):
    """Raised in a thread to end it when its schedule has ended."""


@define(eq=False)
class Thread:
    """A thread of a schedule."""

    name: str
    priority: float
    gate: threading.Semaphore = field(factory=lambda: threading.Semaphore(0))
    may_go: Callable[[], bool] | None = None
    """Returns whether what the thread waits for is true; None if it does not wait."""
    until: float = math.inf
    """When the wait ends in any case (s of virtual time)."""
    in_write: bool = False
    is_done: bool = False


@define(eq=False)
class Scheduler:
    """A schedule; pass it as `threads` to code that makes locks, and add threads with `start`."""

    rng: Random
    changes: int = 3
    """How often a running thread falls below all others."""
    now: float = field(default=0.0, init=False)
    """The virtual time (s)."""
    kill_at: int = field(default=0, init=False)
    """The step at which the schedule is ended, 0 for none."""
    kill: Callable[[], BaseException] = field(default=AssertionError, init=False)
    """Called at that step; `run` raises the error that it returns."""
    violation: str | None = field(default=None, init=False)
    _threads: list[Thread] = field(factory=list, init=False)
    _bodies: list[threading.Thread] = field(factory=list, init=False)
    _change_at: set[int] = field(init=False)
    _steps: int = field(default=0, init=False)
    _lowest: float = field(default=0.0, init=False)
    _running: Thread | None = field(default=None, init=False)
    _ended: threading.Event = field(factory=threading.Event, init=False)
    _error: BaseException | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._change_at = {self.rng.randrange(STEPS) for _ in range(self.changes)}

    # The same names as in `threading`

    def Lock(self) -> "SeededLock":  # noqa: N802
        return SeededLock(self)

    def RLock(self) -> "SeededLock":  # noqa: N802
        return SeededLock(self)

    def Condition(self) -> "SeededCondition":  # noqa: N802
        return SeededCondition(self)

    # Threads

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Add a thread, which begins when `run` is called."""
        thread = Thread(name, self.rng.random())

        def live() -> None:
            thread.gate.acquire()
            try:
                if not self._ended.is_set():
                    body()
            except Stopped:
                return
            except BaseException as error:  # noqa: ASYNC103 - raised by run
                self._end(error)
                return  # noqa: ASYNC104
            thread.is_done = True
            self._go_on()

        self._threads.append(thread)
        self._bodies.append(threading.Thread(target=live, name=name, daemon=True))

    def run(self) -> None:
        """Run all threads to their ends. Raises the first error of a thread, or Deadlock."""
        for body in self._bodies:
            body.start()
        self._go_on()
        if not self._ended.wait(GATE_S):
            raise Deadlock(f"{self._running} does not come to its next step")
        for thread in self._threads:
            thread.gate.release()
        for body in self._bodies:
            body.join(GATE_S)
        if self._error is not None:
            raise self._error

    @property
    def running(self) -> Thread | None:
        """The thread that runs; None before and after the schedule, when no thread need wait."""
        return None if self._ended.is_set() else self._running

    def step(self) -> None:
        """Let another thread go on if it has a higher priority; called where threads may change."""
        self.wait_for(None)

    def wait_for(self, is_true: Callable[[], bool] | None, timeout: float = math.inf) -> bool:
        """Wait until `is_true` holds, for at most `timeout` (s); return whether it holds."""
        thread = self.running
        if thread is None:
            return is_true is None or is_true()
        self._steps += 1
        if self._steps in self._change_at:
            self._lowest -= 1
            thread.priority = self._lowest
        if self._steps == self.kill_at:
            self._end(self.kill())
            raise Stopped
        thread.may_go, thread.until = is_true, self.now + timeout
        self._go_on()
        if self._running is not thread or self._ended.is_set():
            thread.gate.acquire()
            if self._ended.is_set():
                raise Stopped
        thread.may_go = None
        return is_true is None or is_true()

    def _go_on(self) -> None:
        """Choose which thread goes on, and open its gate if it is not the running one."""
        before, after = self._running, self._choose()
        if self._ended.is_set():
            return
        if after is None:
            waiting = [thread.name for thread in self._threads if not thread.is_done]
            self._end(Deadlock(f"{', '.join(waiting)} wait for one another") if waiting else None)
            return
        self._running = after
        if after is not before:
            after.gate.release()

    def _choose(self) -> Thread | None:
        alive = [thread for thread in self._threads if not thread.is_done]
        ready = [t for t in alive if t.may_go is None or t.may_go() or t.until <= self.now]
        if not ready and alive:
            self.now = min(thread.until for thread in alive)
            ready = [thread for thread in alive if thread.until <= self.now < math.inf]
        return max(ready, key=lambda thread: thread.priority, default=None)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended.is_set():
            self._error = error
            self._ended.set()


@define(eq=False)
class SeededLock(AbstractContextManager[bool]):
    """A lock that the thread which holds it may take again."""

    scheduler: Scheduler
    owner: Thread | None = field(default=None, init=False)
    excludes: bool = field(default=True, init=False)
    """False in a mutant: threads may change here, but none is kept out."""
    _depth: int = field(default=0, init=False)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self.scheduler.running
        if me is None or not self.excludes:
            self.scheduler.step()
            return True
        if self.owner is not me:
            self.scheduler.step()
            if self.owner is not None and not self._wait(me, blocking, timeout):
                return False
        self.owner, self._depth = me, self._depth + 1
        return True

    def _wait(self, me: Thread, blocking: bool, timeout: float) -> bool:
        assert self.owner is not None
        if me.name == "trio" and self.owner.in_write and blocking:
            self.scheduler.violation = f"Trio's thread waits while {self.owner.name} writes"
        limit = (timeout if timeout >= 0 else math.inf) if blocking else 0.0
        return self.scheduler.wait_for(lambda: self.owner is None, limit)

    def release(self) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self.owner = None
                self.scheduler.step()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()


@define(eq=False)
class SeededCondition:
    """A condition with its own lock."""

    scheduler: Scheduler
    _lock: SeededLock = field(init=False)
    _notified: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._lock = SeededLock(self.scheduler)

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `predicate` holds after a notification, for at most `timeout` (s)."""
        until = self.scheduler.now + (math.inf if timeout is None else timeout)
        while not predicate() and self.scheduler.now < until:
            heard = self._notified
            self._lock.release()
            self.scheduler.wait_for(
                lambda heard=heard: self._notified > heard,  # type: ignore[misc]
                until - self.scheduler.now,
            )
            self._lock.acquire()
        return predicate()

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        self._notified += 1
