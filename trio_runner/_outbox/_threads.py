"""Locks and conditions as interfaces, so that tests can put in a scheduler of their own."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Lock(AbstractContextManager[bool], Protocol):
    """A lock like those of `threading`."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Acquire the lock; return whether that was possible within `timeout` (s)."""

    def release(self) -> None:
        """Release the lock."""


class Condition(AbstractContextManager[bool], Protocol):
    """A condition with a lock of its own, like `threading.Condition`."""

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = ...) -> bool:
        """Wait until the predicate is true, for `timeout` (s) at most; return whether it is."""

    def notify_all(self) -> None:
        """Wake all threads that wait, so that they look again."""


class Threads(Protocol):
    """A maker of locks and conditions, such as the module `threading`."""

    @property
    def Condition(self) -> Callable[[], Condition]: ...  # noqa: N802

    @property
    def RLock(self) -> Callable[[], Lock]: ...  # noqa: N802

    @property
    def Lock(self) -> Callable[[], Lock]: ...  # noqa: N802
