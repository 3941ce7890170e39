"""Marks of situations that a simulation must sometimes meet, or else its world is too small.

A mark stands in the code of the simulated world, where the situation is met. It counts, and
changes nothing else.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_met: ContextVar[Counter[str]] = ContextVar("met")


def sometimes(name: str, holds: object = True) -> None:
    """Count that the situation of this name is met, if `holds` is true and `counting` is active."""
    if holds:
        met = _met.get(None)
        if met is not None:
            met[name] += 1


@contextmanager
def counting() -> Generator[Counter[str], None, None]:
    """Yield a counter of the marks met in the block, and in tasks that begin in it."""
    met = Counter[str]()
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)
