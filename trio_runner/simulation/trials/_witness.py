"""A witness between a runner and its dialer, which tells the oracle what goes over each link."""

import trio
from attrs import define, frozen

from trio_runner._errors import NetworkError
from trio_runner._groups import first
from trio_runner._timing import Timing
from trio_runner._warnings import Warnings
from trio_runner.net import Answered, Dialer, Session
from trio_runner.protocol import MessageBase, unpack
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._watched_link import WatchedLink


@define(eq=False)
class Witness:
    """A `Dialer` that watches the links of another, as long as its process counts as alive."""

    dialer: Dialer
    oracle: Oracle
    is_on: bool = True

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `trio_runner.Dialer`."""
        started, why = _Started(task_status, self), ""
        self.note("dial")
        try:
            # Trio's TaskStatus has a second overload, for `started()` without a value.
            await self.dialer.dial(registration, timing, task_status=started)  # type: ignore[arg-type]
        except Exception as error:
            self.note("dial", "ended:", type(error).__name__)
            sometimes(f"dial {type(error).__name__}", not started.links and self.is_on)
            if self.is_on:
                self.oracle.state.end_dial(
                    in_line=isinstance(error, NetworkError) and error.in_line
                )
            why = str(first(error))
            raise
        finally:
            for link in started.links:
                if self.is_on:
                    self.oracle.close_link(link, why)

    def warn_by(self, warnings: Warnings) -> None:
        """See `trio_runner.Dialer`."""
        self.dialer.warn_by(warnings)

    async def end_commands(self) -> None:
        """See `trio_runner.Dialer`."""
        await self.dialer.end_commands()

    def note(self, *words: str) -> None:
        """Add a line to the trace."""
        if self.is_on:
            self.oracle.trace.note(*words)


class _Started:
    """A task status that wraps the session that it is started with, so that it is watched."""

    def __init__(self, task_status: trio.TaskStatus[Session], witness: Witness) -> None:
        self._task_status = task_status
        self._witness = witness
        self.links: list[WatchedLink] = []

    def started(self, value: Session) -> None:
        if self._witness.is_on:
            link = self._witness.oracle.open_link()
            self.links.append(link)
            value = _WatchedSession(value, link, self._witness)
        self._task_status.started(value)


@frozen
class _WatchedSession:
    """A session that shows its messages and answers to the oracle."""

    _session: Session
    _link: WatchedLink
    _witness: Witness

    @property
    def engine_id(self) -> str:
        return self._session.engine_id

    @property
    def bytes_sent(self) -> int:
        return self._session.bytes_sent

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        def settle(answer: MessageBase) -> None:
            if self._witness.is_on:
                self._witness.oracle.answer(self._link, sequence_number, answer)
            answered(answer)

        if self._witness.is_on:
            self._witness.oracle.send(self._link, sequence_number, unpack(packed))
        self._session.send(sequence_number, packed, settle, patience=patience)

    async def aclose(self) -> None:
        await self._session.aclose()

    def abort(self) -> None:
        self._session.abort()
