"""Which commits have begun and ended, and how long unwritten changes have waited for one."""

from collections.abc import Callable

from attrs import define, field

from trio_runner._outbox import Condition

DISK_WAIT_S = 1.0
"""How long an engine's thread waits for the disk, and from when on a disk counts as slow (s)."""

WAIT_SHARE = 0.1
"""The share of the time that engines' threads wait on average, however much they tell."""

QUICK_S = 60
"""How long a slow disk must have been quick before it counts as quick again (s)."""


@define(eq=False)
class Commits:
    """A count of commits. What was noted before one began is on disk when it has ended well.

    `want` and `begin` are called with the outbox's lock held. Under the same lock the commit takes
    what it writes. `end` is called by the thread that writes.
    """

    clock: Callable[[], float]
    _changed: Condition
    begun: int = field(default=0, init=False)
    ended: int = field(default=0, init=False)
    _wanted_at: float | None = field(default=None, init=False)
    """Since when something has waited that no commit has taken."""
    _taken_at: float | None = field(default=None, init=False)
    """Since when what is being written has waited."""
    _waited_s: float = field(default=0.0, init=False)
    """How long engines' threads have waited, less what the time since has made up for (s)."""
    _waited_at: float = field(default=0.0, init=False)
    """When `_waited_s` was last updated (s, by the clock)."""
    _slow_at: float | None = field(default=None, init=False)
    """When the disk was last slow, or None if it has been quick for `QUICK_S` since."""

    def want(self) -> None:
        """Note that something waits to be written."""
        if self._wanted_at is None:
            self._wanted_at = self.clock()

    def begin(self) -> None:
        """Note that a commit has taken what waits."""
        self.begun += 1
        self.want()
        self._taken_at, self._wanted_at = self._wanted_at, None

    def end(self) -> None:
        """Note that no commit is being written any more, and wake the threads that wait."""
        with self._changed:
            self.ended, self._taken_at = self.begun, None
            self._changed.notify_all()

    def wait_until(self, is_done: Callable[[], bool]) -> None:
        """Wait until a commit has done its work, for as long as an engine's thread still may.

        A control loop tells of several things in a tick, and again in the next one. So it waits for
        `DISK_WAIT_S` once, and then for `WAIT_SHARE` of the time.
        """
        with self._changed:
            began = self.clock()
            made_up_for = WAIT_SHARE * (began - self._waited_at)
            self._waited_s = max(0.0, self._waited_s - made_up_for)
            self._changed.wait_for(is_done, max(0.0, DISK_WAIT_S - self._waited_s))
            self._waited_at = self.clock()
            self._waited_s += self._waited_at - began

    @property
    def is_slow(self) -> bool:
        """Whether something has waited for longer than any thread waits for it."""
        now = self.clock()
        return any(
            since is not None and now - since >= DISK_WAIT_S
            for since in (self._taken_at, self._wanted_at)
        )

    def became_slow(self) -> bool:
        """Note that the disk is slow; return whether that is news."""
        was_quick, self._slow_at = self._slow_at is None, self.clock()
        return was_quick

    def became_quick(self) -> bool:
        """Return, once, whether a slow disk has been quick for `QUICK_S`."""
        if self._slow_at is None or self.clock() - self._slow_at < QUICK_S:
            return False
        self._slow_at = None
        return True
