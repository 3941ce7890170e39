"""When the engines of one process tick."""

from contextlib import ExitStack

import pytest

from trio_runner._grid import FULL, SLOTS, Grid

TICK_S = 0.1


def test_the_first_engine_begins_at_once() -> None:
    """It has its own ticks, and a later engine that is alone is not bound to them."""
    grid = Grid()
    for now in (7.03, 8.055):
        with grid.place(now, TICK_S) as start:
            assert start == now


def test_a_later_engine_ticks_together_with_the_first() -> None:
    """The first began at 7.03, so the ticks of one that comes at 9.0 are 9.03, 9.13, ..."""
    grid = Grid()
    with grid.place(7.03, TICK_S), grid.place(9.0, TICK_S) as start:
        assert start == 7.03


def test_engines_are_grouped_and_then_spread_evenly_over_full_groups() -> None:
    """Four groups of 48 fill up one by one, 25 ms apart; of 8 more, each group gets 2."""
    grid = Grid()
    with ExitStack() as stack:
        starts = [
            stack.enter_context(grid.place(5.0 if n == 0 else 5.09, TICK_S))
            for n in range(SLOTS * FULL + 8)
        ]
    assert starts[: SLOTS * FULL : FULL] == pytest.approx([5.0, 5.025, 5.05, 5.075])
    assert [starts.count(start) for start in sorted(set(starts))] == [50, 50, 50, 50]


def test_the_place_of_an_engine_that_has_ended_is_free() -> None:
    """An engine leaves a full group, and the next engine takes its place and not one elsewhere."""
    grid = Grid()
    with ExitStack() as group:
        for _ in range(FULL - 1):
            group.enter_context(grid.place(0, TICK_S))
        with grid.place(0, TICK_S) as last:
            assert last == 0
        with grid.place(0, TICK_S) as next_one:
            assert next_one == 0
