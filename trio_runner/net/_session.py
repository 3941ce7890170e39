"""Remote calls both ways over one websocket.

Five kinds of task share a session. The reader never waits for the others: it settles answers on the
spot and starts a separate task for each command of the aggregator's. So a slow command delays
neither the answers to us nor the next command. The command's task carries it out and queues the
answer. The writer sends what is queued, answers first. The keepalive pings, each ping in a subtask.
The watch ends the session when the oldest unanswered call is too old. It looks again when the
oldest call that it knew of is due, so that a call and its answer cost it nothing.

Bytes that move show that the peer is alive: a message that leaves slowly over a thin path is not
late. The time for an answer counts from when the last byte of its call left; a call that has not
left yet is late only if no byte at all has left for that long. The time for a pong counts from the
latest of three: the ping itself, bytes that came in, or a piece of a large message that left.
In either case, a peer that takes nothing and says nothing is noticed within 10 s.

Most of a message's cost arises in the layers below. So frames that are ready are written together,
and a message goes out compressed just as it waited. An answer equal to the previous one is not
parsed again. Messages do not get their own tasks or cancel scopes.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVarTuple

import trio
import trio_websocket
from attrs import define, field

from trio_runner import protocol
from trio_runner._errors import LinkLost
from trio_runner._printable import printable
from trio_runner._publish import Doorbell
from trio_runner._say_once import SayOnce
from trio_runner._timing import Timing
from trio_runner.net._commands import Dispatch
from trio_runner.net._deflating import Inflater
from trio_runner.net._framed import BATCH_BYTES, COMPRESSED_TEXT, TEXT, FramedStream
from trio_runner.net._interfaces import Answered
from trio_runner.net._said import decode_answer, unreadable, why_closed
from trio_runner.protocol import messages as m

logger = logging.getLogger(__name__)

CLOSE_S = 1
"""How long an orderly close may take (s)."""

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""The largest message accepted from the aggregator (bytes), before and after it is inflated.

It holds a method of 30,000 lines."""

VALUES_MAX = 250_000
"""How many JSON values such a message may hold, counted roughly: a method of 80,000 lines.

Reading the worst message of that size takes 22 MB and 0.1 s of Trio's thread. At 16 MiB, which the
aggregator's own server accepts from us, it could take 500 MB and 4 s."""

CALLS_MAX = 64
"""How many calls of the aggregator's may be open or wait for their answers to be written.

With more, the aggregator is assumed to have gone mad and the link is cut."""

Ts = TypeVarTuple("Ts")


@define(eq=False)
class _Call:
    """A call of ours that is waiting for its answer."""

    what: str
    answered: Callable[[object], None]
    patience: int
    """How many times `Timing.call_s` its answer may take."""
    since: float
    """When it was made; later, when its last byte left (s on Trio's clock)."""
    has_left: bool = False


@define(eq=False, kw_only=True)
class RpcSession:
    """The implementation of `Session`; `run` lives as long as the link."""

    _websocket: trio_websocket.WebSocketConnection
    engine_id: str
    _timing: Timing
    _dispatch: Dispatch
    _cut: Callable[[], None]
    _stream: FramedStream
    _deflates: bool
    """Whether binary messages are compressed texts."""
    _calls: OrderedDict[str, _Call] = field(factory=OrderedDict, init=False)
    _freed_at: float = field(default=0.0, init=False)
    """When a call with a `patience` above 1 was last answered (s on Trio's clock)."""
    _calls_made: int = field(default=0, init=False)
    _calls_received: int = field(default=0, init=False)
    _messages: deque[tuple[int, bytes, _Call]] = field(factory=deque, init=False)
    _answers: deque[str] = field(factory=deque, init=False)
    _inflater: Inflater = field(factory=lambda: Inflater(FRAME_BYTES_MAX), init=False)
    _something_to_write: Doorbell = field(factory=Doorbell, init=False)
    _identified: trio.Event = field(factory=trio.Event, init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    is_ending: bool = field(default=False, init=False)
    """Whether we have begun to close the link or have cut it."""

    @property
    def bytes_sent(self) -> int:
        """See `Session.bytes_sent`."""
        return self._stream.bytes_sent

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        """See `Session.send`."""

        def settle(result: object) -> None:
            if not isinstance(result, str):
                raise unreadable(f"expected a string, found {type(result).__name__}")
            answered(decode_answer(result))

        call_id, call = self._note_call("a message", settle, patience)
        if self._deflates:
            payload = protocol.splice_dispatch(call_id, self.engine_id, sequence_number, packed)
            self._messages.append((COMPRESSED_TEXT, payload, call))
        else:
            body = protocol.unpack(packed)
            text = protocol.encode_dispatch(call_id, self.engine_id, sequence_number, body)
            self._messages.append((TEXT, text.encode(), call))
        self._something_to_write.ring()

    async def aclose(self) -> None:
        """See `Session.aclose`."""
        self.is_ending = True
        try:
            with (
                trio.move_on_after(CLOSE_S),
                suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                await self._stream.flush()
                await self._websocket.aclose()
        finally:
            self.abort()

    def abort(self) -> None:
        """See `Session.abort`."""
        self.is_ending = True
        self._cut()

    async def ready(self) -> None:
        """Wait until the aggregator has answered a ping and has asked for the engine id.

        Our reply with the id leaves before any message; one that arrives before the aggregator
        knows the id is lost. The aggregator asks in a separate task, so its question may come
        before or after the pong, and neither alone is proof. Needs `run` in another task, which
        raises LinkLost if the pong is wrong.
        """
        pong = trio.Event()

        def settle(result: object) -> None:
            if result != "pong":
                said = printable(result) if isinstance(result, str) else type(result).__name__
                raise LinkLost(f"The aggregator answered a ping with {said!r}, not with pong.")
            pong.set()

        call_id, call = self._note_call("ping", settle)
        ping = protocol.Request(protocol.PING, {}, call_id)
        self._messages.append((TEXT, protocol.encode_request(ping).encode(), call))
        self._something_to_write.ring()
        await pong.wait()
        await self._identified.wait()

    async def run(self) -> None:
        """Serve the link until it ends.

        Raises what broke the link, alone or in a group: LinkLost, another NetworkError from
        `Answered`, or an error of the stream or of trio-websocket. If cancelled, nothing is left
        running.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer)
            nursery.start_soon(self._keepalive)
            nursery.start_soon(self._watch)
            await self._while_open(self._reader, nursery)

    async def _watch(self) -> None:
        """End the link when the oldest call is too old. Raises LinkLost.

        Look at least every `Timing.call_s` instead of at every call: a call made in the meantime is
        not due any sooner.
        """
        while True:
            oldest = next(iter(self._calls.values()), None)
            look_at = trio.current_time() + self._timing.call_s
            if oldest is None:
                await trio.sleep_until(look_at)
            elif (due := self._due(oldest)) > trio.current_time():
                await trio.sleep_until(min(due, look_at))
            elif not oldest.has_left:
                longest_s = self._timing.call_s
                raise LinkLost(f"The connection took no more of {oldest.what} for {longest_s:g} s.")
            else:
                longest_s = oldest.patience * self._timing.call_s
                raise LinkLost(
                    f"The aggregator did not answer {oldest.what} within {longest_s:g} s."
                )

    def _due(self, call: _Call) -> float:
        """Return when a call is overdue (s on Trio's clock).

        A call that has left waits for its answer. One that has not waits for bytes to leave.
        """
        if not call.has_left:
            return max(call.since, self._stream.left_at) + self._timing.call_s
        return max(call.since, self._freed_at) + call.patience * self._timing.call_s

    async def _while_open(self, task: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Run a task until it ends; if it finds the websocket closed, raise LinkLost.

        If it is we who close the websocket, wait to be cancelled instead.
        """
        try:
            await task(*arguments)
        except trio_websocket.ConnectionClosed as closed:
            if not self.is_ending:
                raise LinkLost(why_closed(closed)) from None
            await trio.sleep_forever()  # until `aclose` ends and cancels this task

    # Outgoing

    def _note_call(
        self, what: str, answered: Callable[[object], None], patience: int = 1
    ) -> tuple[str, _Call]:
        self._calls_made += 1
        call_id = f"{self._calls_made:032x}"  # unique within the link and the same in every replay
        self._calls[call_id] = call = _Call(what, answered, patience, trio.current_time())
        return call_id, call

    async def _writer(self) -> None:
        while True:
            leaving = self._put_batch()
            if self._stream.waiting_bytes:
                await self._stream.flush()
                now = trio.current_time()
                for call in leaving:
                    call.since, call.has_left = now, True
            else:
                await self._something_to_write.wait()

    def _put_batch(self) -> list[_Call]:
        """Hand the next messages to the stream, answers first; return the calls among them."""
        calls: list[_Call] = []
        while self._stream.waiting_bytes < BATCH_BYTES:
            if self._answers:
                self._stream.put(TEXT, self._answers.popleft().encode())
            elif self._messages:
                first_byte, payload, call = self._messages.popleft()
                calls.append(call)
                self._stream.put(first_byte, payload)
            else:
                break
        return calls

    async def _keepalive(self) -> None:
        async with trio.open_nursery() as pings:
            while True:
                await trio.sleep(self._timing.ping_s)
                asked, pong = trio.current_time(), trio.Event()
                pings.start_soon(self._while_open, self._ping, pong)
                while not pong.is_set():
                    due = self._pong_due(asked)
                    if due <= trio.current_time():
                        raise LinkLost(
                            "The aggregator did not answer a ping within"
                            f" {self._timing.pong_s:g} s."
                        )
                    with trio.move_on_at(due):
                        await pong.wait()

    def _pong_due(self, asked: float) -> float:
        """Return when the pong to a ping sent at `asked` is too late (s on Trio's clock)."""
        # Each piece of a large message that leaves is a sign of life: the peer has made room.
        due = max(asked, self._stream.moved_at) + self._timing.pong_s
        # A message that is retried with more patience may keep the aggregator from everything else.
        patient = (call for call in self._calls.values() if call.has_left and call.patience > 1)
        return max([due, *map(self._due, patient)])

    async def _ping(self, pong: trio.Event) -> None:
        await self._websocket.ping()
        pong.set()

    # Incoming

    async def _reader(self, nursery: trio.Nursery) -> None:
        while True:
            text = await self._websocket.get_message()
            try:
                if self._deflates and isinstance(text, bytes):
                    text = self._inflater.text(text)
                frame = protocol.decode_frame(text, VALUES_MAX)
            except (protocol.DecodeError, ValueError) as error:
                raise LinkLost(
                    "The aggregator sent a frame that is not a remote call:"
                    f" {printable(str(error))}"
                ) from None
            if isinstance(frame, protocol.Response):
                self._settle(frame)
            else:
                self._serve(frame, nursery)

    def _settle(self, response: protocol.Response) -> None:
        call = self._calls.pop(response.call_id or "", None)
        if call is None:
            self._complain(
                "Ignored an answer to a call that does not wait for one", str(response.call_id)
            )
            return
        if call.patience > 1:
            self._freed_at = trio.current_time()
        call.answered(response.result)

    def _serve(self, request: protocol.Request, nursery: trio.Nursery) -> None:
        if self._calls_received + len(self._answers) >= CALLS_MAX:
            raise LinkLost(
                f"The aggregator has made more than {CALLS_MAX} calls that are not answered yet."
            )
        if request.method == protocol.PING:
            self._answer(request, "pong")
        elif request.method == protocol.GET_ENGINE_ID:
            self._answer(request, self.engine_id)
            self._identified.set()
        elif request.method == protocol.DISPATCH:
            self._calls_received += 1
            nursery.start_soon(self._carry_out, request)
        else:
            method = printable(request.method)
            self._complain("The aggregator called an unknown method", method)
            unknown = m.ProtocolErrorMessage(protocol_msg=f"Unknown method {method!r}")
            self._answer(request, protocol.encode_json(unknown))

    async def _carry_out(self, request: protocol.Request) -> None:
        reply = await self._dispatch(request.arguments.get("message_json"))
        self._calls_received -= 1
        self._answer(request, protocol.encode_json(reply))

    def _complain(self, what: str, of: str) -> None:
        # A peer that does this once may do it with every message.
        self._say(logging.WARNING, "%s: %s", what, printable(of), about=what)

    def _answer(self, request: protocol.Request, result: str) -> None:
        response = protocol.Response(result=result, result_type="str", call_id=request.call_id)
        self._answers.append(protocol.encode_response(response))
        self._something_to_write.ring()
