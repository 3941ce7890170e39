"""What keeps threads apart, so that tests can put a scheduler of their own in its place."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Lock(Protocol):
    """A lock, as `threading`'s are."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:
        """Take it; return whether that was possible within `timeout` (s)."""

    def release(self) -> None:
        """Let it go."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Condition(Protocol):
    """A condition with a lock of its own, as `threading.Condition` is."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = ...) -> bool:
        """Wait until something is true, for `timeout` (s) at most; return whether it is."""

    def notify_all(self) -> None:
        """Wake all who wait, so that they look again."""


class Threads(Protocol):
    """Makes locks and conditions; the module `threading` does."""

    @property
    def Condition(self) -> Callable[[], Condition]: ...  # noqa: N802

    @property
    def RLock(self) -> Callable[[], Lock]: ...  # noqa: N802

    @property
    def Lock(self) -> Callable[[], Lock]: ...  # noqa: N802
