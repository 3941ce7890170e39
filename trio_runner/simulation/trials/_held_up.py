"""A check that a notice that fails again and again holds up no beginning or end of a run."""

from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.trials._tries import PASSED_AFTER
from trio_runner.simulation.trials._watched_link import Key

HELD_UP_S = 5.0
"""How long a run event may wait though nothing keeps it from going out, besides two answers (s)."""


@define(eq=False)
class HeldUp:
    """Follows the run event that may go out next; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _key: Key | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def check_second(self, key: Key | None, longest_s: float) -> None:
        """Check that the run event that may go out, if there is one, has not waited for long.

        `longest_s` is the longest time that an answer took on this link (s).
        """
        now = trio.current_time()
        if key != self._key:
            self._key, self._since = key, now
        in_time = key is None or now - self._since <= HELD_UP_S + 2 * longest_s
        self.expect(in_time, f"{key} waits for notices that have failed {PASSED_AFTER} times")
