"""When the engines of one process have their ticks."""

from contextlib import ExitStack

import pytest

from trio_runner._grid import FULL, SLOTS, Grid

TICK_S = 0.1


def test_the_first_engine_begins_at_once_whenever_that_is() -> None:
    """Alone it has ticks of its own; the next that is alone is not bound to them."""
    grid = Grid()
    for now in (7.03, 8.055):
        with grid.place(now, TICK_S) as start:
            assert start == now


def test_a_later_engine_has_the_ticks_of_the_first() -> None:
    """The first began at 7.03, and so the ticks of one that comes at 9.0 are 9.03, 9.13, ..."""
    grid = Grid()
    with grid.place(7.03, TICK_S), grid.place(9.0, TICK_S) as start:
        assert start == 7.03


def test_engines_come_in_groups_evenly_once_each_group_is_full() -> None:
    """Four groups of 48 fill up one by one, 25 ms apart; of 8 more each gets 2."""
    grid = Grid()
    with ExitStack() as stack:
        starts = [
            stack.enter_context(grid.place(5.0 if n == 0 else 5.09, TICK_S))
            for n in range(SLOTS * FULL + 8)
        ]
    assert starts[: SLOTS * FULL : FULL] == pytest.approx([5.0, 5.025, 5.05, 5.075])
    assert [starts.count(start) for start in sorted(set(starts))] == [50, 50, 50, 50]


def test_the_place_of_an_engine_that_ends_is_free() -> None:
    """Of a full group one leaves, and the next that comes takes its place, not one of another."""
    grid = Grid()
    with ExitStack() as group:
        for _ in range(FULL - 1):
            group.enter_context(grid.place(0, TICK_S))
        with grid.place(0, TICK_S) as last:
            assert last == 0
        with grid.place(0, TICK_S) as next_one:
            assert next_one == 0
