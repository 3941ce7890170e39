"""Remote calls both ways over one websocket.

Five kinds of task share a session. The reader never waits for any other: it settles answers on the
spot and gives each of the aggregator's calls a task of its own, so that a slow command delays
neither the answers to us nor the next command. The writer sends what is queued, answers first. The
keepalive pings. The watch ends the session when the oldest unanswered call is too old; it looks
when the oldest that it knew of is due, so that a call and its answer cost it nothing.

What a message costs here is mostly what is below: so frames that are ready are written together, a
message goes out compressed as it has waited, an answer that was the last one too is not parsed
again, and no message has a task or scope of its own.
"""

import functools
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio
import trio_websocket
from attrs import define, field, frozen

from trio_runner import protocol
from trio_runner._errors import LinkLost, TrioRunnerError
from trio_runner._publish import Doorbell
from trio_runner._timing import Timing
from trio_runner.net._deflating import Inflater
from trio_runner.net._interfaces import Answered
from trio_runner.net._together import Gathering
from trio_runner.protocol import messages as m

logger = logging.getLogger(__name__)

CLOSE_S = 1
"""How long a close in order may take (s)."""

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""The largest message taken from the aggregator (bytes); its own server takes as much from us."""

CALLS_MAX = 64
"""Calls of the aggregator's that are open or whose answers are not written, at the most.

With more it is taken for mad and the link is cut."""

_BROKEN_RULES = {1002, 1003, 1007, 1009}
"""Close codes for what a side cannot take from the other: no websocket frame, no UTF-8, too big."""

Ts = TypeVarTuple("Ts")

Dispatch = Callable[[object], Awaitable[m.MessageBase]]
"""Carries out a message of the aggregator's, as parsed JSON, and returns the answer."""


@frozen
class _Call:
    """A call of ours that waits for its answer: what it was, when it is too late, who is told."""

    what: str
    deadline: float
    answered: Callable[[object], None]


@define(eq=False)
class RpcSession:
    """See the interface `Session`; `run` lives as long as the link."""

    _websocket: trio_websocket.WebSocketConnection
    engine_id: str
    _timing: Timing
    _dispatch: Dispatch
    _cut: Callable[[], None]
    _stream: Gathering
    _deflates: bool
    """Whether messages of bytes are compressed texts."""
    _calls: OrderedDict[str, _Call] = field(factory=OrderedDict, init=False)
    _patient_until: float = field(default=0.0, init=False)
    _calls_made: int = field(default=0, init=False)
    _calls_received: int = field(default=0, init=False)
    _messages: deque[str | bytes] = field(factory=deque, init=False)
    _answers: deque[str | bytes] = field(factory=deque, init=False)
    _inflater: Inflater = field(factory=lambda: Inflater(FRAME_BYTES_MAX), init=False)
    _something_to_write: Doorbell = field(factory=Doorbell, init=False)
    _identified: trio.Event = field(factory=trio.Event, init=False)
    _complaints: set[str] = field(factory=set, init=False)
    is_ending: bool = field(default=False, init=False)
    """Whether we have begun to close it or have cut it."""

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        """See `Session.send`."""

        def settle(result: object) -> None:
            answered(_decode_answer(result if isinstance(result, str) else repr(result)))

        call_id = self._note_call("a message", settle, patience)
        self._write(self._messages, self._frame(call_id, sequence_number, packed))

    def _frame(self, call_id: str, sequence_number: int, packed: bytes) -> str | bytes:
        if self._deflates:
            return protocol.splice_dispatch(call_id, self.engine_id, sequence_number, packed)
        body = protocol.unpack(packed)
        return protocol.encode_dispatch(call_id, self.engine_id, sequence_number, body)

    async def aclose(self) -> None:
        """See `Session.aclose`."""
        self.is_ending = True
        self._stream.holds = False
        try:
            with trio.move_on_after(CLOSE_S):
                await self._websocket.aclose()
        finally:
            self.abort()

    def abort(self) -> None:
        """See `Session.abort`."""
        self.is_ending = True
        self._cut()

    async def ready(self) -> None:
        """Wait until the aggregator has answered a ping and asked for and been told the engine id.

        What is sent before it knows the id is lost on it; its question stands in line with ours, so
        that neither alone is proof. Needs `run`.
        """
        pong = trio.Event()

        def settle(result: object) -> None:
            if result != "pong":
                raise LinkLost(
                    f"The aggregator answered a ping with {result!r:.100}, not with pong."
                )
            pong.set()

        call_id = self._note_call("ping", settle)
        ping = protocol.Request(protocol.PING, {}, call_id)
        self._write(self._messages, protocol.encode_request(ping))
        await pong.wait()
        await self._identified.wait()

    async def run(self) -> None:
        """Serve the link until it ends.

        It ends by being cancelled, which leaves nothing running, or by raising LinkLost, alone or
        in a group.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._while_open, self._writer)
            nursery.start_soon(self._while_open, self._keepalive)
            nursery.start_soon(self._watch)
            await self._while_open(self._reader, nursery)

    async def _watch(self) -> None:
        """End the link when the oldest call is too old.

        It looks once a deadline and not at every call: a call made meanwhile is due later.
        """
        while True:
            oldest = next(iter(self._calls.values()), None)
            if oldest is None:
                await trio.sleep(self._timing.call_s)
            elif oldest.deadline > trio.current_time():
                await trio.sleep_until(oldest.deadline)
            else:
                raise LinkLost(
                    f"The aggregator did not answer {oldest.what} within {self._timing.call_s:g} s."
                )

    async def _while_open(self, task: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Run a task; when it finds the websocket closed, the link is lost, or we close it."""
        try:
            await task(*arguments)
        except trio_websocket.ConnectionClosed as closed:
            if not self.is_ending:
                raise LinkLost(_why_closed(closed)) from None
            await trio.sleep_forever()  # until aclose has ended

    # Out

    def _note_call(self, what: str, answered: Callable[[object], None], patience: int = 1) -> str:
        self._calls_made += 1
        call_id = f"{self._calls_made:032x}"  # unique within the link, and the same in every replay
        deadline = trio.current_time() + patience * self._timing.call_s
        if patience > 1:  # it may keep the aggregator from anything else, pongs as well
            self._patient_until = deadline
        self._calls[call_id] = _Call(what, deadline, answered)
        return call_id

    def _write(self, line: deque[str | bytes], frame: str | bytes) -> None:
        line.append(frame)
        self._something_to_write.ring()

    async def _writer(self) -> None:
        while True:
            while line := self._answers or self._messages:
                frame = line.popleft()
                # A close frame must not be kept.
                self._stream.holds = bool(self._answers or self._messages) and not self.is_ending
                await self._websocket.send_message(frame)
            await self._something_to_write.wait()

    async def _keepalive(self) -> None:
        while True:
            await trio.sleep(self._timing.ping_s)
            with trio.move_on_after(self._timing.pong_s) as patience:
                patience.deadline = max(patience.deadline, self._patient_until)
                await self._websocket.ping()
            if patience.cancelled_caught:
                raise LinkLost(
                    f"The aggregator did not answer a ping within {self._timing.pong_s:g} s."
                )

    # In

    async def _reader(self, nursery: trio.Nursery) -> None:
        while True:
            text = await self._websocket.get_message()
            try:
                if self._deflates and isinstance(text, bytes):
                    text = self._inflater.text(text)
                frame = protocol.decode_frame(text)
            except (protocol.DecodeError, ValueError) as error:
                raise LinkLost(
                    f"The aggregator sent a frame that is no remote call: {error}"
                ) from None
            if isinstance(frame, protocol.Response):
                self._settle(frame)
            else:
                self._serve(frame, nursery)

    def _settle(self, response: protocol.Response) -> None:
        call = self._calls.pop(response.call_id, None)
        if call is None:
            self._complain("Ignored an answer to a call that is not waiting", response.call_id)
            return
        call.answered(response.result)

    def _serve(self, request: protocol.Request, nursery: trio.Nursery) -> None:
        if self._calls_received + len(self._answers) >= CALLS_MAX:
            raise LinkLost(f"The aggregator has more than {CALLS_MAX} calls open.")
        if request.method == protocol.PING:
            self._answer(request, "pong")
        elif request.method == protocol.GET_ENGINE_ID:
            self._answer(request, self.engine_id)
            self._identified.set()
        elif request.method == protocol.DISPATCH:
            self._calls_received += 1
            nursery.start_soon(self._carry_out, request)
        else:
            self._complain("The aggregator called an unknown method", f"{request.method!r:.100}")
            unknown = m.ProtocolErrorMessage(protocol_msg=f"Unknown method {request.method!r:.100}")
            self._answer(request, protocol.encode_json(unknown))

    async def _carry_out(self, request: protocol.Request) -> None:
        with trio.move_on_after(self._timing.answer_s) as patience:
            reply = await self._dispatch(request.arguments.get("message_json"))
        if patience.cancelled_caught:
            late = f"The engine did not carry this out within {self._timing.answer_s:g} s"
            logger.warning("%s; its handler was cancelled", late)
            reply = m.ErrorMessage(message=late)
        self._calls_received -= 1
        self._answer(request, protocol.encode_json(reply))

    def _complain(self, what: str, of: str) -> None:
        # Once loudly: who does it once may do it with every message.
        level = logging.DEBUG if what in self._complaints else logging.WARNING
        self._complaints.add(what)
        logger.log(level, "%s: %s", what, of)

    def _answer(self, request: protocol.Request, result: str) -> None:
        response = protocol.Response(result=result, result_type="str", call_id=request.call_id)
        self._write(self._answers, protocol.encode_response(response))


@functools.lru_cache(1)  # nearly all are one and the same Success
def _decode_answer(result: object) -> m.MessageBase:
    """Return the message that an answer holds; one that holds none is the aggregator's failure."""
    try:
        if not isinstance(result, str):
            raise TypeError(f"expected a string, got {type(result).__name__}")
        return protocol.decode_json(result)
    except (TrioRunnerError, TypeError) as error:
        return m.ProtocolErrorMessage(protocol_msg=f"The answer is no message: {error}")


def _why_closed(closed: trio_websocket.ConnectionClosed) -> str:
    reason = closed.reason
    if reason is None:
        return "The connection was closed."
    if reason.code == 1006:
        return "The connection broke off."
    said = f": {reason.reason}" if reason.reason else ""
    if reason.code in _BROKEN_RULES:
        # trio-websocket does not tell which side closed: it or we.
        return f"The connection was closed for a breach of the protocol, code {reason.code}{said}."
    return f"The aggregator closed the connection with code {reason.code}{said}."
