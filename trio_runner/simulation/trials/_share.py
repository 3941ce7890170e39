"""A check of how much of a link state messages take: they change often, and samples need it too."""

import math
from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

LOOK_S = 30.0
"""The time over which it is counted (s)."""

SHARE = 0.4
"""The share of the time that state messages of one kind may take; it should be a fifth."""


@define(eq=False)
class StatesShare:
    """Follows how long state messages occupy a link; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _answers: dict[str, deque[tuple[float, float]]] = field(factory=dict, init=False)
    """When state messages of each kind were answered, and how long that took (both s)."""
    _quiet_since: float = field(default=math.inf, init=False)
    _way_s: float = field(default=math.nan, init=False)

    def answer(self, kind: str, took_s: float) -> None:
        """Note that a state message was answered, so long after it was sent (s)."""
        self._answers.setdefault(kind, deque()).append((trio.current_time(), took_s))

    def check_second(self, *, is_quiet: bool, way_s: float) -> None:
        """Check how much they took while the way there and back (`way_s`, s) stayed the same."""
        now = trio.current_time()
        if not is_quiet or way_s != self._way_s:
            self._quiet_since, self._way_s = now, way_s
        for kind, answers in self._answers.items():
            while answers and answers[0][0] < max(now - LOOK_S, self._quiet_since):
                answers.popleft()
            occupied = [max(0.0, took_s - way_s) for _, took_s in answers]
            # The first may have begun earlier, and a single one may take as long as it takes. So
            # leave the longest out.
            taken_s = sum(occupied) - max(occupied, default=0.0)
            modest = taken_s <= SHARE * LOOK_S
            self.expect(modest, f"{kind} took the line for {taken_s:.1f} s of {LOOK_S:g} s")
