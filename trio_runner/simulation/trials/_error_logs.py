"""A check of error logs: what is logged while one waits is a part of it, but for the middle."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

import trio
from attrs import define, field

from trio_runner.simulation.trials._watched_link import (
    ROUNDING_S,
    SAMPLE,
    Key,
    left_out_by,
)

TOGETHER_S = 0.5 + 0.5 + ROUNDING_S
"""What was logged so shortly before need not be a part of it (s): the log waits for the disk, and
then until the sender looks again."""

SAMPLES = 4
"""After this many samples it then has its turn."""

LINES_MAX = 1000
"""How many entries one error log may have; of more, the first half and the last half are kept."""


@define(eq=False)
class ErrorLogs:
    """Knows what was logged and when; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    made: Sequence[Key]
    """Every event and sample that the engine made, in order."""
    made_at: Mapping[Key, float]
    place: Mapping[Key, int]
    _ended_at: list[float] = field(factory=list, init=False)
    """When links have ended (s)."""

    def close_link(self) -> None:
        """Note that a link has ended."""
        self._ended_at.append(trio.current_time())

    def check_whole(self, key: Key, life_began: int, answer_s: float) -> None:
        """Check that nothing was logged after the last entry of a log that is sent.

        If a link ends when the log is about to go out, the log stays as it is. `life_began` is the
        place in `made` at which the present process began, and `answer_s` the longest time that an
        answer took on this link (s).
        """
        place = self.place.get(key, 0)
        ended_at = (at for at in self._ended_at if at >= self.made_at[key])
        closed_at = min(trio.current_time(), next(ended_at, math.inf)) - TOGETHER_S
        closed_at -= SAMPLES * answer_s
        for later in self.made[place + 1 :] if place >= life_began else ():
            if later[0] == "errors":
                together = self.made_at[later] > closed_at
                self.expect(together, f"{key} was sent, and {later} had been logged after it")
            if later[0] != SAMPLE:
                return

    def left_out(self, keys: Sequence[Key], body: str) -> list[Key]:
        """Check the bound of a log that is sent; return the entries that were left out of it."""
        lines = [entry["message"] for entry in json.loads(body)["log"]["entries"]]
        self.expect(len(keys) <= LINES_MAX, f"an error log of {len(keys)} entries was sent")
        at = next((n for n, line in enumerate(lines) if left_out_by(line)), None)
        if at is None:
            return []
        halves = at, len(keys) - at
        self.expect(min(halves) >= LINES_MAX // 2, f"of an error log {halves} entries were kept")
        first, last = keys[:at], keys[at:]
        between = self.made[self.place[first[-1]] : self.place[last[0]]] if first and last else []
        gone = [key for key in between[1:] if key[0] == "errors"]
        said = left_out_by(lines[at])
        self.expect(said == len(gone), f"{said} entries are said to be left out, {len(gone)} are")
        return gone
