"""Decide which state messages a link has to tell, and when.

Only the latest message of a kind is told, and only if the aggregator has not heard it over this
link. States change often, and samples need the link too. So after each message the next one of its
kind rests.
"""

import logging

import trio
from attrs import define, field

from trio_runner._again import PAUSE_MAX_S, Again, pause_s
from trio_runner._answers import UNREADABLE, Verdict, reason
from trio_runner._outbox import STATE_TYPES, Outbox
from trio_runner._say_once import SayOnce
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

STATE_REST = 4
"""The next state of a kind waits this many times as long as the last one kept others waiting."""


@define(eq=False)
class _State:
    """What this link knows about one kind of state message."""

    heard: str | None = None
    """The last one that was answered, whether taken or refused. It is not sent again."""
    is_taken: bool = False
    is_known: bool = False
    """Whether one was taken."""
    is_unknown: bool = False
    """Whether none can be taken: the aggregator is of an older version."""
    rests_until: float = 0.0
    """When samples have had as much time as they are due."""


@define(eq=False)
class News:
    """The state messages of a link: what it has told of each kind, and what it has to tell."""

    _outbox: Outbox
    _again: Again
    _say: SayOnce
    under_way: int = field(default=0, init=False)
    """How many are unanswered."""
    _states: dict[type[em.EngineMessage], _State] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._states = {kind: _State() for kind in STATE_TYPES}

    @property
    def kinds(self) -> tuple[type[em.EngineMessage], ...]:
        """All kinds, in the order in which they have their turn."""
        return tuple(self._states)

    def of(self, kind: type[em.EngineMessage]) -> str | None:
        """Return the latest message of a kind, or None if it was heard here or is under way."""
        body, state, told = self._outbox.state(kind), self._states[kind], self._again.of(kind)
        is_known = body == state.heard or body == told.left_out or state.is_unknown
        return None if is_known or told.under_way is not None else body

    def due_at(self, kind: type[em.EngineMessage]) -> float:
        """Return from when on a kind may be told (s on Trio's clock)."""
        return max(self._states[kind].rests_until, self._again.of(kind).due_at)

    def is_taken(self, kind: type[em.EngineMessage]) -> bool:
        """Return whether the last message of a kind that was answered was taken."""
        return self._states[kind].is_taken

    def tell_again(self, kind: type[em.EngineMessage]) -> float:
        """Let a message that was answered be news again; return from when on (s)."""
        told = self._again.of(kind)
        self._states[kind].heard = None
        told.due_at = max(told.due_at, trio.current_time() + pause_s(told.failures))
        return told.due_at

    def leave_out(self, kind: type[em.EngineMessage], body: str) -> None:
        """Note that a message is not sent, since it is too big."""
        self._states[kind].heard = body
        self._again.of(kind).failures += 1
        text = "%s is over the aggregator's limit of 16 MiB: it is left out"
        self._say(logging.ERROR, text, kind.__name__)

    def sent(self, kind: type[em.EngineMessage], body: str) -> int:
        """Note that a message is sent; return how many times the usual patience it has."""
        self._states[kind] = self._states.pop(kind)  # the others come first next time
        self.under_way += 1
        told = self._again.of(kind)
        told.under_way = body
        return told.patience

    def answered(
        self,
        kind: type[em.EngineMessage],
        body: str,
        verdict: Verdict,
        answer: m.MessageBase,
        took_s: float,
        occupied_s: float,
    ) -> None:
        """Note the answer to a message, which took so long and kept others waiting so long (s)."""
        self.under_way -= 1
        now, state, told = trio.current_time(), self._states[kind], self._again.of(kind)
        state.is_taken = verdict is Verdict.DELIVERED
        if state.is_taken:
            told.taken(is_late=took_s > self._again.call_s)
            state.is_known = True
        else:
            told.failed()
            text = "The aggregator did not take %s: %s"
            self._say(logging.ERROR, text, kind.__name__, reason(answer))
            if kind is not em.UodInfoMsg and not state.is_known:  # without it nothing is taken
                state.is_unknown = UNREADABLE in str(answer)
        if verdict is Verdict.TRANSIENT:
            told.due_at = now + pause_s(told.failures)
        else:  # what was refused is sent again when it has changed
            state.heard = body
            state.rests_until = now + min(STATE_REST * occupied_s, PAUSE_MAX_S)
