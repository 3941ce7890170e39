"""Cases that mostly wait: all are played at the same time, and one test each reports the result."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import pytest
import trio
from attrs import define, field

CaseT = TypeVar("CaseT")

FAILURES_MAX = 8
"""After so many failures the other cases are not played, since each may wait for its whole time."""


def chosen(request: pytest.FixtureRequest, name: str, cases: Iterable[CaseT]) -> list[CaseT]:
    """Return the cases that a test of this session has as its parameter of this name."""
    parameters = [
        getattr(item, "callspec").params.get(name)  # noqa: B009 - of functions alone
        for item in request.session.items
        if hasattr(item, "callspec")
    ]
    return [case for case in cases if any(case is parameter for parameter in parameters)]


@define(eq=False)
class Outcomes:
    """How the cases ended, by their names."""

    _failures: dict[str, Exception | None] = field(factory=dict, init=False)

    async def play(
        self,
        cases: Iterable[tuple[str, Callable[[], Awaitable[None]]]],
        *,
        at_once: int,
        case_s: float,
    ) -> None:
        """Play the cases, `at_once` at a time, each for at most `case_s` (s on Trio's clock)."""
        room = trio.Semaphore(at_once)

        async def play(name: str, case: Callable[[], Awaitable[None]]) -> None:
            async with room:
                failed = sum(failure is not None for failure in self._failures.values())
                if failed >= FAILURES_MAX:
                    self._failures[name] = RuntimeError(f"not played: {failed} others failed")
                else:
                    self._failures[name] = await _failure(case, case_s)

        async with trio.open_nursery() as nursery:
            for name, case in cases:
                nursery.start_soon(play, name, case)

    def check(self, name: str) -> None:
        """Raise the error that ended the case, if it failed."""
        failure = self._failures[name]
        if failure is not None:
            raise failure


async def _failure(case: Callable[[], Awaitable[None]], case_s: float) -> Exception | None:
    try:
        with trio.fail_after(case_s):
            await case()
    except Exception as failure:
        return failure
    return None
