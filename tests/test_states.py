"""The states: their legal edges, and the one place that lets only these through."""

import itertools

import pytest

from trio_runner._states import EDGES, STATES, RecoverState, StateMachine


async def ignore(*_: object) -> None:
    """Do nothing."""


def machine_in(state: RecoverState) -> StateMachine:
    machine = StateMachine(ignore, lambda *_: None, ignore)
    machine.current = state
    return machine


def test_the_edges_are_those_of_the_protocol() -> None:
    """The table is compared with that of the protocol, edge by edge."""
    assert EDGES == {
        "Started": ("Connected", "Failed", "Stopped"),
        "Connected": ("Failed", "Stopped"),
        "Failed": ("Disconnected", "Stopped"),
        "Disconnected": ("Reconnecting", "Failed", "Stopped"),
        "Reconnecting": ("CatchingUp", "Failed", "Stopped"),
        "CatchingUp": ("Reconnected", "Failed", "Stopped"),
        "Reconnected": ("Failed", "Stopped"),
        "Stopped": ("ShutdownComplete",),
        "ShutdownComplete": (),
    }


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(STATES, 2)))
async def test_only_legal_edges_pass(before: RecoverState, after: RecoverState) -> None:
    """An illegal edge is a bug; the error names both states and those that would be legal."""
    machine = machine_in(before)
    if after in EDGES[before]:
        await machine.enter(after)
        assert machine.current == after
    else:
        with pytest.raises(AssertionError, match=f"no edge {before} -> {after}: legal"):
            await machine.enter(after)
        assert machine.current == before


async def test_a_change_is_told_before_and_after() -> None:
    """`changing` sees the state before, `changed` the state after."""
    told: list[tuple[str, ...]] = []

    async def changing(before: str, after: str) -> None:
        told.append((machine.current, before, after))

    async def changed(after: str) -> None:
        told.append((machine.current, after))

    machine = StateMachine(changing, lambda *_: None, changed)
    async with machine.alive("Connected"):
        assert told == [("Started", "Started", "Connected"), ("Connected", "Connected")]


async def test_a_lifetime_may_have_several_steps() -> None:
    """The last flush and the end of the runner are both Stopped, which is told once."""
    machine = machine_in("Stopped")
    for _ in range(2):
        async with machine.alive("Stopped"):
            assert machine.current == machine.body == "Stopped"
        assert machine.body is None


async def test_no_lifetime_begins_within_another() -> None:
    """Two open blocks at once are a bug, and the state stays that of the block that is alive."""
    machine = machine_in("Disconnected")
    async with machine.alive("Disconnected"):
        with pytest.raises(AssertionError, match="Disconnected is still alive: Reconnecting"):
            async with machine.alive("Reconnecting"):
                pass
        assert machine.current == machine.body == "Disconnected"
