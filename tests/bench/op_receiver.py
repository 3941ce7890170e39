"""The server side of `openpectus`: its dispatcher under uvicorn, with handlers that only count.

It runs in the environment of `openpectus`, so nothing here imports this project's package.
"""

# mypy: ignore-errors
# It builds on packages of another environment than the one that is type-checked.

import asyncio
import logging
import socket
import threading
import time
from contextlib import asynccontextmanager

import openpectus.protocol.aggregator_messages as am
import openpectus.protocol.engine_messages as em
import uvicorn
from fastapi import FastAPI
from openpectus.protocol.aggregator_dispatcher import AggregatorDispatcher

from tests.bench.lines import hear, tell

HANDLED = (
    em.UodInfoMsg,
    em.TagsUpdatedMsg,
    em.RunLogMsg,
    em.QueuedRunLogMsg,
    em.ControlStateMsg,
    em.MethodStateMsg,
    em.ErrorLogMsg,
    em.RunStartedMsg,
    em.RunStoppedMsg,
    em.MethodMsg,
    em.WebPushNotificationMsg,
)


class Receiver:
    """Registers every engine, counts tags, and calls engines when told to."""

    def __init__(self) -> None:
        self.dispatcher = AggregatorDispatcher()
        self.dispatcher.set_register_handler(self._register)
        for kind in HANDLED:
            self.dispatcher.set_message_handler(kind, self._handle)
        self._expected = 0
        self._count = 0
        self._first = 0.0
        self._engine_id = ""

    async def _register(self, message: em.RegisterEngineMsg) -> am.RegisterEngineReplyMsg:
        self._engine_id = f"{message.computer_name}_{message.uod_name}"
        return am.RegisterEngineReplyMsg(
            success=True, engine_id=self._engine_id, secret_match=True, version_match=True
        )

    async def _handle(self, message: em.EngineMessage) -> am.SuccessMessage:
        if isinstance(message, em.TagsUpdatedMsg):
            self._count += 1
            if self._count == 1:
                self._first = time.monotonic()
            if self._count == self._expected:
                tell(first=self._first, last=time.monotonic(), count=self._count)
        return am.SuccessMessage()

    async def do_expect(self, count: int) -> None:
        """Forget everything, and tell when this many TagsUpdated messages have arrived."""
        self._count, self._expected = 0, count

    async def do_call(self, count: int, every_s: float, behind: int) -> None:
        """Call the newest engine so often once it has sent enough; tell how long each took (s).

        A call that fails ends the connection and the calls.
        """
        while self._count < behind:
            await asyncio.sleep(0.01)
        took_s, failed = [], False
        for _ in range(count):
            began = time.monotonic()
            try:
                await self.dispatcher.rpc_call(
                    self._engine_id, am.ExecuteControlCommandMsg(name="Pause")
                )
            except Exception:
                failed = True
            took_s.append(time.monotonic() - began)
            if failed:
                break
            await asyncio.sleep(every_s)
        tell(took_s=took_s, failed=failed, behind=self._count)


def main() -> None:
    """Run the receiver as a process."""
    logging.disable(logging.CRITICAL)
    receiver = Receiver()

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        loop = asyncio.get_running_loop()

        def obey() -> None:
            while True:
                told = hear()
                todo = getattr(receiver, f"do_{told.pop('do')}")(**told)
                asyncio.run_coroutine_threadsafe(todo, loop)

        threading.Thread(target=obey, daemon=True).start()
        tell(ports=[listener.getsockname()[1]])
        yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(receiver.dispatcher.router)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2000)
    server = uvicorn.Server(uvicorn.Config(app, log_level=logging.CRITICAL))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
