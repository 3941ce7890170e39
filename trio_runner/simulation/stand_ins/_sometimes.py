"""Marks of situations: what a simulation must meet sometimes, or its world is too small.

A mark stands in the code of the world, at the place where a situation is met. It counts, and
changes nothing.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_met: ContextVar[Counter[str]] = ContextVar("met")


def sometimes(name: str, holds: object = True) -> None:
    """Count that the situation of this name is met, if something holds; in a simulation only."""
    if holds:
        met = _met.get(None)
        if met is not None:
            met[name] += 1


@contextmanager
def counting() -> Generator[Counter[str], None, None]:
    """Give what counts the marks that are met in the block, and in tasks that begin in it."""
    met = Counter[str]()
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)
