"""What states take of a line: they change all the time, and samples need it too."""

import math
from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

LOOK_S = 30.0
"""Over so long it is counted (s)."""

SHARE = 0.4
"""Of the time that a line may be taken by states of a kind; a fifth is what it should be."""


@define(eq=False)
class StatesShare:
    """Follows how long states occupy the line; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _answers: dict[str, deque[tuple[float, float]]] = field(factory=dict, init=False)
    """When states of each kind were answered (s), and how long after they were sent (s)."""
    _quiet_since: float = field(default=math.inf, init=False)
    _way_s: float = field(default=math.nan, init=False)

    def answer(self, kind: str, took_s: float) -> None:
        """Note that a state was answered, so long after it was sent (s)."""
        self._answers.setdefault(kind, deque()).append((trio.current_time(), took_s))

    def check_second(self, *, is_quiet: bool, way_s: float) -> None:
        """Check what they took, if the way there and back was the same for a while (s)."""
        now = trio.current_time()
        if not is_quiet or way_s != self._way_s:
            self._quiet_since, self._way_s = now, way_s
        for kind, answers in self._answers.items():
            while answers and answers[0][0] < max(now - LOOK_S, self._quiet_since):
                answers.popleft()
            occupied = [max(0.0, took_s - way_s) for _, took_s in answers]
            # The first may have begun before, and a single one may be as long as it is.
            taken_s = sum(occupied) - max(occupied, default=0.0)
            modest = taken_s <= SHARE * LOOK_S
            self.expect(modest, f"{kind} took the line for {taken_s:.1f} s of {LOOK_S:g} s")
