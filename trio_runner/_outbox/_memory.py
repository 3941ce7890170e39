"""The outbox that ends with the process."""

from typing import ClassVar

from attrs import define

from trio_runner._outbox._base import Outbox
from trio_runner.protocol import engine_messages as em


@define(eq=False)
class MemoryOutbox(Outbox):
    """An outbox in memory only: nothing needs committing, and nothing outlives the process."""

    is_durable: ClassVar[bool] = False

    def claim(self, unit: str, registration: em.RegisterEngineMsg | None = None) -> None:
        """Do nothing: the messages end with the process that made them."""

    def commit(self) -> None:
        """Do nothing: there is no disk."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def fate(self) -> str:
        """Return that everything is lost."""
        return "lost: the outbox is in memory"
