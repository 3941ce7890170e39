"""What all runners of a Trio run share."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def of_this_run(shared: trio.lowlevel.RunVar[T], make: Callable[[], T]) -> T:
    """Return what a Trio run shares, made by the first that asks for it."""
    try:
        return shared.get()
    except LookupError:
        made = make()
        shared.set(made)
        return made
