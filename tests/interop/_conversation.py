"""One conversation with an aggregator, and what the aggregator has made of it.

It is the same with the real one and with the stand-in: over TCP, one message after the other.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any

import httpx2
import trio
import trio_websocket
from attrs import define, field

from trio_runner._answers import classify
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    OPENPECTUS_VERSION,
    Request,
    Response,
    decode_frame,
    decode_json,
    encode,
    encode_request,
    encode_response,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

Json = dict[str, Any]
ANSWER_S = 15.0


class Do(Enum):
    """A step of a conversation that is no message."""

    LEAVE = "close the connection, and be back"
    KILL = "let the aggregator die, and be back"


Step = Json | Do
"""The next step; a message is a JSON object into which the engine's id is put."""


@define(eq=False)
class Engine:
    """An engine without any sense of its own: it sends what it is told to."""

    port: int
    name: str
    kill: Callable[[], Awaitable[None]]
    """Kills the aggregator and starts it again."""
    answers: list[tuple[str, str]] = field(factory=list, init=False)
    """The answer to each message: its kind, and its text."""
    _calls: int = field(default=0, init=False)

    @property
    def engine_id(self) -> str:
        return f"pc_{self.name}"

    async def play(self, steps: Sequence[Step], look: Callable[[], Awaitable[Json]]) -> Json:
        """Connect, take the steps, and return what is seen then, while still connected."""
        waiting, seen = list(steps), Json()
        while waiting:
            await self._register()
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            async with stream, trio.open_nursery() as nursery:
                link = await trio_websocket.wrap_client_stream(
                    nursery, stream, "127.0.0.1", "/engine-rpc"
                )
                await self._say_id(link)
                while waiting:
                    step = waiting.pop(0)
                    if isinstance(step, Do):
                        break
                    self.answers.append(await self._ask(link, step))
                if step is Do.KILL:
                    await self.kill()
                if not waiting:
                    seen = await look()
                nursery.cancel_scope.cancel()
        return seen

    async def _register(self) -> None:
        message = em.RegisterEngineMsg(
            computer_name="pc",
            uod_name=self.name,
            uod_author_name="",
            uod_author_email="",
            uod_filename="",
            location="",
            engine_version=OPENPECTUS_VERSION,
        )
        url = f"http://127.0.0.1:{self.port}/engine-rest"
        async with httpx2.AsyncClient(trust_env=False) as client:
            with trio.fail_after(ANSWER_S):
                # It refuses until it has noticed that the last connection has ended.
                while True:
                    answer = await client.post(url, json=encode(message))
                    if answer.raise_for_status().json()["success"]:
                        return
                    await trio.sleep(0.05)

    async def _say_id(self, link: trio_websocket.WebSocketConnection) -> None:
        call = decode_frame(await link.get_message())
        assert isinstance(call, Request)
        assert call.method == GET_ENGINE_ID
        await link.send_message(encode_response(Response(self.engine_id, "str", call.call_id)))

    async def _ask(
        self, link: trio_websocket.WebSocketConnection, message: Json
    ) -> tuple[str, str]:
        self._calls += 1
        arguments = {"message_json": {"engine_id": self.engine_id, **message}}
        request = Request(DISPATCH, arguments, f"{self._calls:032x}")
        await link.send_message(encode_request(request))
        with trio.fail_after(ANSWER_S):
            while True:
                frame = decode_frame(await link.get_message())
                if isinstance(frame, Response) and frame.call_id == request.call_id:
                    return said(decode_json(str(frame.result)))


def said(answer: m.MessageBase) -> tuple[str, str]:
    """Return the kind and the text of an answer."""
    return type(answer).__name__, classify(answer).value
