"""The aggregator's commands, carried out by the package's own handlers in a worker thread."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Unpack

import trio
from openpectus.protocol.exceptions import ProtocolDeserializationException
from openpectus.protocol.serialization import deserialize

from trio_runner import (
    EngineDispatcher,
    NetworkOptions,
    PlainEngine,
    Session,
    Timing,
    VersionRefused,
)
from trio_runner.bridge._engine import UodEngine
from trio_runner.bridge._wire import to_ours
from trio_runner.protocol import ErrorMessage, MessageBase, ProtocolErrorMessage
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)


class UodDispatcher(EngineDispatcher):
    """Dials the aggregator and hands its messages unchanged to the engine's handlers.

    The handlers run in a worker thread, one at a time and in order. A handler that blocks holds up
    neither the link nor Trio's thread. When its time is over (`Timing.answer_s`), the aggregator is
    answered and the handler is left to its thread. Later commands are not carried out until it has
    ended.

    The other arguments and the exceptions are those of `EngineDispatcher`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        engine: UodEngine,
        **network: Unpack[NetworkOptions],
    ) -> None:
        # `dispatch` is overridden, so these handlers are never called.
        super().__init__(host, port, handlers=PlainEngine(), **network)
        self._of_package = engine.handlers
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `trio_runner.net.Dialer`; VersionRefused also says what to do."""
        try:
            await super().dial(registration, timing, task_status=task_status)
        except VersionRefused as refused:
            raise VersionRefused(
                f"{refused} That is: pip install openpectus=={refused.wanted}, or"
                " --ignore_version_error True.",
                wanted=refused.wanted,
            ) from None

    async def dispatch(self, message_json: object) -> MessageBase:
        """Carry out a message from the aggregator and return the answer.

        An exception of the handler is logged and returned as an error. If cancelled, a handler that
        has begun still runs to its end in its thread.
        """
        try:
            message: Any = deserialize(message_json)
        except ProtocolDeserializationException as error:
            self._complain(str(error))
            return ProtocolErrorMessage(protocol_msg=f"The message cannot be read: {error}")
        handler = self._of_package.get(type(message))
        if handler is None:
            return ProtocolErrorMessage(
                protocol_msg=f"An engine does not handle {type(message).__name__}"
            )
        try:
            return await self._outcome(handler, message)
        except Exception as error:
            logger.exception("The handler of %s failed", type(message).__name__)
            return ErrorMessage(
                message=f"The engine failed to handle {type(message).__name__}",
                exception_message=str(error),
            )

    async def _outcome(self, handler: Callable[[Any], Awaitable[Any]], message: Any) -> MessageBase:
        async def handle() -> Any:
            return await handler(message)

        # The handlers are asyncio coroutines, but they block.
        result = await trio.to_thread.run_sync(
            lambda: asyncio.run(handle()), abandon_on_cancel=True, limiter=self._one_at_a_time
        )
        return to_ours(result, MessageBase)
