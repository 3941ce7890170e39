"""A check of what arrives at the aggregator: in which order, and how much work waits there."""

from collections.abc import Callable, Sequence

from attrs import define, field

from trio_runner.simulation.trials._watched_link import RUN_EVENTS, Key, is_notice

WORK_S = 0.25
"""How much work from us may queue at the aggregator (s)."""

LATE_IN_A_ROW = 8
"""So many messages in a row are too many to find more work queued: their answers show it sooner."""


@define(eq=False)
class Arrivals:
    """Follows messages as they arrive for the first time; `expect` is the oracle's.

    After a kill samples may come back that were just given up, but no event. So what tells the
    order of samples is the connection.
    """

    expect: Callable[[object, str], None]
    made: Sequence[Key]
    """Every event and sample that the engine made, in order."""
    _newest_on: dict[int, int] = field(factory=dict, init=False)
    """The place in `made` of the newest that has come over each connection, notices aside."""
    _newest_notice: dict[str, int] = field(factory=dict, init=False)
    """The same of each kind of notices, whatever the connection."""
    _newest_run_event: int = field(default=-1, init=False)
    """The same of run events."""
    _late_in_a_row: int = field(default=0, init=False)

    def check_order(self, key: Key, place: int, connection: int) -> None:
        """Check that nothing newer has arrived before an event or sample, and note it.

        `place` is its place in `made`.
        """
        newest = self._newest_notice.get(key[0], -1)
        if not is_notice(key):
            newest = self._newest_on.get(connection, -1)
            if key[0] in RUN_EVENTS:
                newest = max(newest, self._newest_run_event)
        self.expect(place > newest, f"{key} arrived after {self.made[newest]}")
        if is_notice(key):
            self._newest_notice[key[0]] = place
            return
        self._newest_on[connection] = place
        if key[0] in RUN_EVENTS:
            self._newest_run_event = place

    def check_line(self, in_line_s: float, handling_s: float) -> None:
        """Check that messages do not queue for long.

        `in_line_s` is how long one that is handled now has queued, and `handling_s` how long the
        aggregator takes to handle one (both s).
        """
        self._late_in_a_row = self._late_in_a_row + 1 if in_line_s > WORK_S + handling_s else 0
        self.expect(
            self._late_in_a_row < LATE_IN_A_ROW,
            f"{in_line_s:.2f} s of work was queued at the aggregator",
        )
