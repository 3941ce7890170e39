"""A check that samples are taken as often as they must be, with or without a link."""

from collections.abc import Callable, Container

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._watched_link import ROUNDING_S, Key, WatchedLink

OFFLINE_S = 5.0
"""The time between two samples without a link, unless the data-log interval is shorter (s)."""

TICKS_S = 0.3
"""How much later than that a sample may come, since the runner works in ticks (s)."""


@define(eq=False)
class Sampling:
    """Follows when samples are made; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    steady_s: float
    """The time between two samples while there is a link (s)."""
    sent: Container[Key]
    """What was sent."""
    _offline_s: float = field(default=OFFLINE_S, init=False)
    _last_at: float | None = field(default=None, init=False)
    """From when on the next sample is awaited (s)."""
    _latest: tuple[Key | None, Key | None] = field(default=(None, None), init=False)
    """The last two samples that were made."""
    _kept_up_since: float = field(default=0.0, init=False)
    """When a message was last sent while both of the last two samples waited (s)."""

    def begin_life(self, *, does_any_wait: bool) -> None:
        """Note that a process has started, and whether messages of an earlier one wait."""
        if does_any_wait:
            self._latest = (None, None)  # a sample may be among them
        self._offline_s, self._last_at = OFFLINE_S, trio.current_time()

    def begin_anew(self) -> None:
        """Note that samples can be taken again."""
        self._last_at = trio.current_time()

    def make(self, key: Key) -> None:
        """Note a sample."""
        self._last_at = trio.current_time()
        self._latest = (self._latest[-1], key)

    def set_interval(self, data_log_interval_s: float) -> None:
        """Note the data-log interval of the unit (s)."""
        self._offline_s = min(OFFLINE_S, data_log_interval_s)

    def close_link(self) -> None:
        """Note that a link has ended: from here on samples are taken at the offline rate."""
        if self._last_at is not None:
            self._last_at = max(self._last_at, trio.current_time() - self._offline_s)

    def send(self) -> None:
        """Note that a message is about to be sent."""
        if self._is_behind():
            self._kept_up_since = trio.current_time()

    @property
    def does_newest_wait(self) -> bool:
        """Whether the newest sample was not sent yet."""
        return self._latest[-1] not in self.sent

    def check(self, link: WatchedLink | None) -> None:
        """Check that the newest sample is not too old; `link` is the present or last one."""
        if self._last_at is None:
            return
        since, longest = self._last_at, self._offline_s
        if link is not None and link.is_open:
            since = max(since, link.opened_at, self._kept_up_since)
            longest = max(longest, self.steady_s) if self._is_behind() else self.steady_s
            sometimes("taken seldom", trio.current_time() - since > 2 * self.steady_s)
        gap = trio.current_time() - since
        self.expect(gap <= longest + TICKS_S + ROUNDING_S, f"no sample was taken for {gap:.1f} s")

    def _is_behind(self) -> bool:
        """Tell whether the last two samples wait to be sent; samples are then taken less often."""
        return all(key is None or key not in self.sent for key in self._latest)
