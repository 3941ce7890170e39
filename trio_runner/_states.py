"""The recovery states, their legal edges as data, and the one place where a state is entered.

A state is the name of what is alive just now, published for observers. No code reads it to decide
what to do. README's diagram is drawn from `EDGES` by `diagram()`.
"""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, get_args

import trio
from attrs import define, field

from trio_runner._say_once import SayOnce

logger = logging.getLogger(__name__)

RecoverState = Literal[
    "Started",
    "Connected",
    "Failed",
    "Disconnected",
    "Reconnecting",
    "CatchingUp",
    "Reconnected",
    "Stopped",
    "ShutdownComplete",
]
"""A state of the runner, which is the lifetime of a task; see the README."""

STATES: tuple[RecoverState, ...] = get_args(RecoverState)

EDGES: dict[RecoverState, tuple[RecoverState, ...]] = {
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


STEADY: tuple[RecoverState, ...] = ("Connected", "Reconnected")

HEALTHY_S = 60
"""How long a link must have been in steady state to be healthy (s): its end is news again."""


@define
class StateMachine:
    """Holds the state, lets only legal edges through and tells every change in order.

    `changing(before, after)` is awaited before the change, `publish(before, after)` is called with
    it, and `changed(after)` is awaited after it. The change is made whatever `changing` does: what
    has begun to live is alive, even if a callback failed or was cancelled.
    """

    _changing: Callable[[RecoverState, RecoverState], Awaitable[None]]
    _publish: Callable[[RecoverState, RecoverState], None]
    _changed: Callable[[RecoverState], Awaitable[None]]
    current: RecoverState = field(default="Started", init=False)
    body: RecoverState | None = field(default=None, init=False)
    """The state whose block is open, or None between two blocks."""
    _turned_at: float = field(default=math.inf, init=False)
    """When a steady state last began or ended (s on Trio's clock)."""
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    """Logs each change once while links are short, so that not every redial is news."""

    @asynccontextmanager
    async def alive(self, state: RecoverState) -> AsyncGenerator[None, None]:
        """Publish a state while the block, which is its lifetime, runs.

        Entering the current state again does nothing: a lifetime may have several steps, such as
        the wait before a dial and the dial. Raises AssertionError if the block of another state is
        still open, or if the edge is not legal: both are bugs of this package.
        """
        assert self.body is None, f"{self.body} is still alive: {state} cannot begin"
        self.body = state
        try:
            await self.enter(state)
            yield
        finally:
            self.body = None

    async def enter(self, state: RecoverState) -> None:
        """Go to a state.

        Raises AssertionError if the edge is not legal, which is a bug of this package.
        """
        before = self.current
        if state == before:
            return
        legal = EDGES[before]
        assert state in legal, f"no edge {before} -> {state}: legal from {before} are {legal}"
        if (before in STEADY) != (state in STEADY):
            self._note_turn()
        self._say(logging.INFO, "Changing state: %s -> %s", before, state)
        try:
            await self._changing(before, state)
        finally:
            self.current = state
            self._publish(before, state)
        await self._changed(state)

    def _note_turn(self) -> None:
        """Let every change be news again after a healthy link, or after as long without one."""
        now = trio.current_time()
        if now - self._turned_at > HEALTHY_S:
            self._say.forget()
        self._turned_at = now


def diagram() -> str:
    """Return states and edges as a Mermaid diagram, with the many edges to Stopped as one note."""
    lines = ["stateDiagram-v2", "    [*] --> Started"]
    for before, afters in EDGES.items():
        lines += [f"    {before} --> {after}" for after in afters if after != "Stopped"]
    lines += ["    note right of Stopped: from any state", "    ShutdownComplete --> [*]"]
    return "\n".join(lines)
