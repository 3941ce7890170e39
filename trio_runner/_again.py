"""Decide how a message that did not get through is tried again.

There are pauses before it, more patience with its answer, going alone, and giving way. Events and
samples carry their tries with them, in the outbox. States and the repeated beginning of a run have
no place in the line, so what is known about each kind is kept here. It outlives the links.
"""

import logging

import trio
from attrs import define, field

from trio_runner._outbox import STATE_TYPES, SUSPECT_LINKS, Entry
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

PAUSE_MAX_S = 60
"""The longest pause (s) before a message that did not get through is tried again."""

PATIENCE_MAX = 12
"""How many times longer than usual the answer to such a message may take, at the most."""

LEFT_OUT_AFTER = 8
"""After so many links in a row that ended at a state, it is left out until it changes."""

LEFT_OUT_S = 600
"""For how long a state is then left out at the least (s), however often it changes."""


def pause_s(failures: int) -> float:
    """Return how long to wait (s) before a message that failed so often is tried again."""
    return min(2.0 ** min(failures - 1, 6), PAUSE_MAX_S) if failures else 0.0


def patience(failures: int) -> int:
    """Return how many times longer than usual to wait for the answer to such a message."""
    return min(1 << min(failures, 4), PATIENCE_MAX)


@define(eq=False)
class Told:
    """How telling one kind has gone so far, over all links."""

    failures: int = 0
    """How many times in a row it failed through itself, not through the link."""
    links: int = 0
    """How many links in a row ended while it was unanswered."""
    due_at: float = 0.0
    """When it may be tried again (s on Trio's clock)."""
    left_out: str | None = None
    """The message that is not sent again until it changes."""
    under_way: str | None = None
    """The message that is unanswered."""
    _slow: int = 0
    """After how many failures it got through, if the usual patience would not have sufficed."""

    @property
    def is_suspect(self) -> bool:
        """Whether it goes alone, so that it shows whether links end by it."""
        return self.links >= SUSPECT_LINKS or (self.links > 0 and self.failures > 0)

    @property
    def patience(self) -> int:
        """How many times longer than usual to wait for its answer."""
        return patience(max(self.failures, self._slow))

    def taken(self, *, is_late: bool) -> None:
        """Note that the aggregator has it; `is_late` if the usual patience would have given up."""
        self._slow = max(self.failures, self._slow) if is_late else 0
        self.failures = self.links = 0
        self.under_way = self.left_out = None

    def failed(self) -> None:
        """Note an answer that was no success. It is an answer, so this does not end links."""
        self.failures += 1
        self.links = 0
        self.under_way = None

    def cut(self, *, alone: bool) -> None:
        """Note that the link ended; if this was the only unanswered message, it may be why."""
        self.links += 1
        self.failures += alone
        if alone and self.failures > 1:  # once is no sign
            self.due_at = max(self.due_at, trio.current_time() + pause_s(self.failures))

    def leave_out(self) -> None:
        """Do not send what is under way again until it changes."""
        self.left_out = self.under_way
        self.due_at = trio.current_time() + LEFT_OUT_S


@define(eq=False)
class Again:
    """What a runner knows about telling each kind; `call_s` is the usual patience (s)."""

    _warnings: Warnings
    call_s: float = 10.0
    _told: dict[type[em.EngineMessage], Told] = field(init=False)
    _run_number: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._told = {kind: Told() for kind in (*STATE_TYPES, em.RunStartedMsg)}

    def of(self, kind: type[em.EngineMessage]) -> Told:
        """Return what is known about a kind."""
        return self._told[kind]

    def of_run(self, run_started: Entry) -> Told:
        """Return what is known about telling the beginning of a run; forget any other run's."""
        if run_started.sequence_number != self._run_number:
            self._run_number = run_started.sequence_number
            self._told[em.RunStartedMsg] = Told()
        return self._told[em.RunStartedMsg]

    @property
    def under_way(self) -> int:
        """How many are unanswered."""
        return sum(told.under_way is not None for told in self._told.values())

    def rewind(self, *, alone: bool) -> None:
        """Note that the link has ended; `alone` if no event or sample was unanswered."""
        alone = alone and self.under_way == 1
        for kind, told in self._told.items():
            if told.under_way is not None:
                told.cut(alone=alone)
                if kind is em.UodInfoMsg:
                    told.due_at = 0.0  # without it nothing goes out
                elif told.links >= LEFT_OUT_AFTER and alone and kind is not em.RunStartedMsg:
                    self._leave_out(kind, told)
                told.under_way = None

    def _leave_out(self, kind: type[em.EngineMessage], told: Told) -> None:
        told.leave_out()
        text = (
            f"{told.links} links in a row ended while {kind.__name__} was sent;"
            " it is left out until it changes"
        )
        logger.error("%s", text)
        self._warnings.tell(logging.ERROR, text, about=f"{kind.__name__} is left out")
