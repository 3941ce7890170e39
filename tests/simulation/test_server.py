"""The aggregator stand-in over streams: connecting, calls, faults, the recorded conversation."""

import ssl
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx2
import pytest
import trio
import trio_websocket
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.helpers.recorded import CONVERSATION
from tests.simulation.test_aggregator import E1, METHOD, REGISTER, UOD_INFO, started, stopped, tags
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    Response,
    SuccessMessage,
    decode,
    decode_frame,
    decode_json,
    encode,
    encode_json,
    encode_request,
    encode_response,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._server import Aggregator, OpenStream

ANSWER_SUCCESS = encode_json(SuccessMessage())


async def http(
    open_stream: OpenStream, method: str, path: str, body: str = "", *, port: int = 80
) -> tuple[int, str]:
    """Make a plain request, and return the status and the text of the answer."""
    stream = await open_stream("aggregator", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    async with stream:
        await stream.send_all((head + body).encode())
        received = b"".join([bytes(part) async for part in stream])
    answer_head, _, text = received.decode().partition("\r\n\r\n")
    return int(answer_head.split()[1]), text


async def register(open_stream: OpenStream, **changes: Any) -> am.RegisterEngineReplyMsg:
    """Register the recorded engine, with these changes."""
    message = attrs.evolve(REGISTER, **changes)
    status, text = await http(open_stream, "POST", "/engine-rest", encode_json(message))
    assert status == 200
    reply = decode_json(text)
    assert isinstance(reply, am.RegisterEngineReplyMsg)
    return reply


class Client:
    """The engine's side of a websocket, as small as possible."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.engine_id: str | None = E1
        self.answers_calls = True
        self.calls: list[MessageBase] = []
        self.results: list[object] = []
        self.closed = trio.Event()
        self._waiting: dict[str | None, trio.Event] = {}
        self._results: dict[str | None, object] = {}

    async def read(self) -> None:
        """Answer calls and collect answers until the websocket ends."""
        try:
            while True:
                frame = decode_frame(await self.websocket.get_message())
                if isinstance(frame, Response):
                    self._results[frame.call_id] = frame.result
                    self.results.append(frame.result)
                    self._waiting.pop(frame.call_id, trio.Event()).set()
                elif frame.method == GET_ENGINE_ID:
                    await self.answer(frame, self.engine_id)
                else:
                    self.calls.append(decode(frame.arguments["message_json"]))
                    await self.answer(frame, ANSWER_SUCCESS)
        except trio_websocket.ConnectionClosed:
            self.closed.set()

    async def answer(self, request: Request, result: object) -> None:
        """Answer a call, unless told not to."""
        if self.answers_calls:
            frame = encode_response(Response(result, "str", request.call_id))
            await self.websocket.send_message(frame)

    async def call(self, method: str, arguments: dict[str, Any]) -> object:
        """Call the aggregator and return the result."""
        call_id = uuid.uuid4().hex
        answered = self._waiting[call_id] = trio.Event()
        await self.websocket.send_message(encode_request(Request(method, arguments, call_id)))
        await answered.wait()
        return self._results[call_id]

    async def send(self, message: MessageBase) -> MessageBase:
        """Dispatch a message and return the answer."""
        result = await self.call(DISPATCH, {"message_json": encode(message)})
        return decode_json(str(result))

    @property
    def close_code(self) -> int:
        """Return the code with which the websocket was closed."""
        assert self.websocket.closed is not None
        return self.websocket.closed.code


@asynccontextmanager
async def upgraded(
    open_stream: OpenStream, path: str = "/engine-rpc", *, port: int = 80, answers: bool = True
) -> AsyncGenerator[Client, None]:
    """Open a websocket and read from it while the block runs."""
    stream: Any = await open_stream("aggregator", port)
    async with stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(
            nursery, stream, "aggregator", path, message_queue_size=64
        )
        client = Client(websocket)
        client.answers_calls = answers
        nursery.start_soon(client.read)
        yield client
        with trio.move_on_after(1):
            await websocket.aclose()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(open_stream: OpenStream) -> AsyncGenerator[Client, None]:
    """Register, open the websocket and get the pong, as an engine does."""
    assert (await register(open_stream)).success
    async with upgraded(open_stream) as client:
        assert await client.call(PING, {}) == "pong"
        yield client


@pytest.fixture
def aggregator() -> Aggregator:
    """Return a fresh aggregator."""
    return Aggregator()


@pytest.fixture
def dial(aggregator: Aggregator, nursery: trio.Nursery) -> OpenStream:
    """Return a function that opens memory streams to the aggregator."""
    return aggregator.in_memory(nursery)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/health", 200, "healthy"),
        ("GET", "/auth/config?a=1", 200, '{"use_auth": false}'),
        ("GET", "/engine-rest", 405, "Method Not Allowed"),
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/engine-rpc", 404, "Not Found"),
        ("POST", "/engine-rest", 500, "Internal Server Error"),
    ],
)
async def test_plain_requests_are_answered_as_the_aggregator_does(
    dial: OpenStream, autojump_clock: MockClock, method: str, path: str, status: int, text: str
) -> None:
    """Health and authentication are answered, wrong paths get 404, a bad registration gets 500."""
    assert await http(dial, method, path) == (status, text)


async def test_a_registration_over_http_is_recorded(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A registration is answered and recorded, with the request's headers."""
    reply = await register(dial)
    assert (reply.success, reply.engine_id) == (True, E1)
    assert aggregator.engine().registrations[0].message == REGISTER
    assert aggregator.requests[0].headers["host"] == "a"


async def test_an_upgrade_at_a_wrong_path_gets_404(
    dial: OpenStream, autojump_clock: MockClock
) -> None:
    """Only one path has a websocket."""
    stream: Any = await dial("aggregator", 80)
    with trio.fail_after(1), pytest.RaisesGroup(trio_websocket.ConnectionRejected) as refused:
        async with trio.open_nursery() as nursery:
            await trio_websocket.wrap_client_stream(nursery, stream, "a", "/wrong")
    await trio.aclose_forcefully(stream)
    assert "status_code=404" in repr(refused.value.exceptions[0])


async def test_half_an_upgrade_gets_400_and_is_given_up(
    autojump_clock: MockClock, aggregator: Aggregator, nursery: trio.Nursery
) -> None:
    """Half an upgrade is answered with 400 at once, and nothing is left of it after 10 s."""
    dial = aggregator.in_memory(nursery)
    async with await dial("aggregator", 80) as stream:
        await stream.send_all(b"GET /engine-rpc HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
        received = b"".join([bytes(part) async for part in stream])
    assert received.startswith(b"HTTP/1.1 400")
    await trio.sleep_until(9.9)
    assert len(nursery.child_tasks) == 1
    await trio.sleep_until(10)
    await wait_all_tasks_blocked()
    assert nursery.child_tasks == frozenset()


async def test_nothing_is_left_of_broken_connections(
    autojump_clock: MockClock, aggregator: Aggregator, nursery: trio.Nursery
) -> None:
    """A drop ends all tasks of websockets and of half a plain request, without any delay."""
    dial = aggregator.in_memory(nursery)
    async with connected(dial) as client, await dial("aggregator", 80) as stream:
        await stream.send_all(b"GET /hea")
        assert len(nursery.child_tasks) == 2
        aggregator.drop()
        await client.closed.wait()
        assert await stream.receive_some() == b""
        await wait_all_tasks_blocked()
        assert nursery.child_tasks == frozenset()
    assert trio.current_time() == 0


async def test_an_engine_with_an_id_counts_as_connected(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The aggregator asks for the id, answers `_ping_` and counts the engine as connected."""
    async with connected(dial):
        assert aggregator.is_connected(E1)
        (connection,) = aggregator.engine().connections
        assert (connection.number, connection.engine_id, connection.closed_s) == (1, E1, None)
    await aggregator.wait_until(lambda: not aggregator.is_connected(E1))
    assert connection.closed_s == trio.current_time()


async def test_a_second_connection_is_closed(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """An id that is connected is not let in again, and the first connection stays."""
    async with connected(dial) as first:
        assert not (await register(dial)).success
        async with upgraded(dial) as second:
            await second.closed.wait()
            assert second.close_code == 1000
        assert await first.send(UOD_INFO) == SuccessMessage()
    assert len(aggregator.engine().connections) == 1


async def test_a_connection_without_an_id_is_closed(
    dial: OpenStream, autojump_clock: MockClock
) -> None:
    """An engine that answers null is not let in."""
    async with upgraded(dial, answers=False) as client:
        client.engine_id, client.answers_calls = None, True
        await client.closed.wait()
        assert client.close_code == 1000


async def test_a_connection_that_does_not_tell_its_id_is_closed_after_2_s(
    dial: OpenStream, autojump_clock: MockClock
) -> None:
    """The question for the id has the same deadline as every call: 2 s, from the upgrade at 0 s."""
    async with upgraded(dial, answers=False) as client:
        await client.closed.wait()
        assert trio.current_time() == 2
        assert client.close_code == 1000


async def test_messages_are_answered_in_order(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """Three pipelined messages at 0.5 s each are answered one after the other."""
    async with connected(dial) as client:
        aggregator.handling_time_s = 0.5
        times: list[float] = []

        async def send(number: int) -> None:
            await trio.sleep(number / 1000)
            message = attrs.evolve(UOD_INFO, sequence_number=number)
            assert await client.send(message) == SuccessMessage()
            times.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(send, number)
        # The first arrives at 1 ms, then one is handled every 0.5 s: 0.501, 1.001, 1.501.
        assert times == pytest.approx([0.501, 1.001, 1.501])
        received = aggregator.engine().received
        assert [item.sequence_number for item in received] == [1, 2, 3]
        assert [item.time_s for item in received] == pytest.approx(times)
        assert {item.connection for item in received} == {1}


async def test_a_message_that_cannot_be_decoded_gets_a_protocol_error(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A frame that is no call gets no answer, and the connection stays."""
    async with connected(dial) as client:
        await client.websocket.send_message("no JSON")
        await client.websocket.send_message(encode_request(Request("unknown", {}, "1")))
        result = await client.call(DISPATCH, {"message_json": {"_type": "Nothing"}})
        assert isinstance(decode_json(str(result)), ProtocolErrorMessage)
        assert await client.send(UOD_INFO) == SuccessMessage()
    assert len(aggregator.bad_frames) == 2


async def test_a_call_returns_the_engines_answer(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A method that the engine takes becomes that of its unit."""
    method = am.MethodMsg(method=attrs.evolve(METHOD.method, version=1))
    async with connected(dial) as client:
        assert await aggregator.call(E1, method) == SuccessMessage()
        assert client.calls == [method]
        assert aggregator.engine().unit.method == method.method
    answer = await aggregator.call("nobody", method)
    assert answer == ErrorMessage(message="Engine nobody is not connected")


async def test_a_late_answer_closes_the_connection(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """Without an answer 2 s after the call, the caller hears of it and the engine is cut off."""
    async with connected(dial) as client:
        client.answers_calls = False
        await trio.sleep(1)
        with pytest.raises(trio.TooSlowError):
            await aggregator.call(E1, am.ExecuteControlCommandMsg(name="Start"))
        assert trio.current_time() == 1 + 2
        assert not aggregator.is_connected(E1)
        await client.closed.wait()
        assert client.close_code == 1000


async def test_a_run_is_listed_before_its_end_is_answered(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The archive takes 12 s, and meanwhile an engine that has gone still counts as connected."""
    async with connected(dial) as client:
        await client.send(started("a"))
        aggregator.archiving_time_s = 12
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, stopped("a"))
            await wait_all_tasks_blocked()
            assert [run.run_id for run in aggregator.recent_runs] == ["a"]
            nursery.cancel_scope.cancel()
    await trio.sleep_until(11)
    assert aggregator.is_connected(E1)
    assert not (await register(dial)).success
    await trio.sleep_until(13)
    assert not aggregator.is_connected(E1)


async def test_an_answer_waits_in_line_after_earlier_messages(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """Five messages of 0.5 s come before an answer that was given at once: 2.5 s is too late."""
    async with connected(dial) as client, trio.open_nursery() as nursery:
        aggregator.handling_time_s = 0.5
        for _ in range(5):
            nursery.start_soon(partial(client.websocket.send_message, _dispatch(UOD_INFO)))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError):
            await aggregator.call(E1, am.ExecuteControlCommandMsg(name="Start"))
        assert trio.current_time() == 2
        assert len(client.calls) == 1
        await client.closed.wait()


async def test_a_call_ends_with_the_connection(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """If the connection breaks during a call, the caller hears of it at once."""
    async with connected(dial) as client, trio.open_nursery() as nursery:
        client.answers_calls = False

        async def call() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await aggregator.call(E1, am.CancelMsg(exec_id="1"))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        aggregator.kill()
    assert trio.current_time() == 0


async def test_a_graceful_restart_closes_with_1012_and_keeps_the_run(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The engine is closed with 1012 and finds its run again."""
    async with connected(dial) as client:
        assert await client.send(UOD_INFO) == SuccessMessage()
        assert await client.send(started("A")) == SuccessMessage()
        await aggregator.restart()
        await client.closed.wait()
        assert client.close_code == 1012
    async with connected(dial) as client:
        await client.send(tags("A", 101.0, FT01=1.0))
        assert aggregator.engine().refused == []
    assert [link.number for link in aggregator.engine().connections] == [1, 2]


async def test_a_killed_aggregator_closes_nothing_and_forgets_the_run(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The connection ends without a close frame, and the run is forgotten."""
    async with connected(dial) as client:
        await client.send(started("A"))
        aggregator.kill()
        await client.closed.wait()
        assert client.close_code == 1006
    async with connected(dial) as client:
        await client.send(tags("A", 101.0, FT01=1.0))
    (refused,) = aggregator.engine().refused
    assert refused.refused == "tags of run A, but no run is active"


async def test_an_aggregator_that_drops_a_connection_remembers_the_run(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The connection breaks, but the aggregator lives on and remembers the engine's run."""
    async with connected(dial) as client:
        await client.send(started("A"))
        aggregator.drop()
        await client.closed.wait()
        assert client.close_code == 1006
    async with connected(dial) as client:
        await client.send(tags("A", 101.0, FT01=1.0))
    assert aggregator.engine().refused == []


@pytest.mark.parametrize(("kill", "code"), [(False, 1012), (True, 1006)])
async def test_dials_are_refused_during_an_outage(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator, kill: bool, code: int
) -> None:
    """Dials are refused while the aggregator is away, and accepted after it."""
    async with connected(dial) as client:
        async with aggregator.outage(kill=kill):
            await client.closed.wait()
            assert client.close_code == code
            with pytest.raises(ConnectionRefusedError):
                await dial("aggregator", 80)
        assert (await register(dial)).success


async def test_an_aggregator_that_is_down_keeps_its_connections(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """Only dials are refused."""
    async with connected(dial) as client:
        aggregator.down()
        with pytest.raises(ConnectionRefusedError):
            await dial("aggregator", 80)
        assert await client.send(UOD_INFO) == SuccessMessage()


async def test_a_muted_aggregator_handles_messages_and_never_answers(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A message has its effect, but the engine gets no answer; `_ping_` is answered."""
    async with connected(dial) as client:
        aggregator.muted = True
        with trio.move_on_after(3600) as patience:
            await client.send(UOD_INFO)
        assert patience.cancelled_caught
        assert aggregator.engine().unit.uod_info == UOD_INFO
        assert await client.call(PING, {}) == "pong"


async def test_on_message_may_answer_instead(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The hook's answer is sent, and the message has no effect."""
    error = ErrorMessage(message="database is locked")

    async def on_message(message: em.EngineMessage) -> MessageBase | None:
        await trio.sleep(0.1)
        return error if isinstance(message, em.UodInfoMsg) else None

    aggregator.on_message = on_message
    async with connected(dial) as client:
        assert await client.send(UOD_INFO) == error
        assert await client.send(started("A")) == SuccessMessage()
    assert aggregator.engine().unit.uod_info is None
    assert [item.refused for item in aggregator.engine().received] == [
        "answered by on_message",
        None,
    ]


async def test_wait_until_sees_each_message(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A task that waits for the second message is woken by it."""
    async with connected(dial) as client, trio.open_nursery() as nursery:

        async def send() -> None:
            await trio.sleep(5)
            await client.send(UOD_INFO)
            await trio.sleep(5)
            await client.send(UOD_INFO)

        nursery.start_soon(send)
        await aggregator.wait_until(lambda: len(aggregator.messages(em.UodInfoMsg)) == 2)
        assert trio.current_time() == 10


async def test_a_silent_peer_is_closed_after_40_s(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The ping comes 20 s after the upgrade; without a pong for 20 s, the id is free at 40 s."""
    await register(dial)
    stream: Any = await dial("aggregator", 80)
    async with trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, "a", "/engine-rpc")
        request = decode_frame(await websocket.get_message())
        assert isinstance(request, Request)
        await websocket.send_message(encode_response(Response(E1, "str", request.call_id)))
        nursery.cancel_scope.cancel()
    # Nobody reads the stream now, and nobody closes it: a half-open break.
    await trio.sleep_until(39.9)
    assert not (await register(dial)).success
    await aggregator.wait_until(lambda: not aggregator.is_connected(E1))
    assert trio.current_time() == 40
    assert (await register(dial)).success
    await trio.aclose_forcefully(stream)


async def test_a_peer_that_answers_pings_is_kept(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """A peer that answers pings is still connected after an hour."""
    async with connected(dial) as client:
        await trio.sleep(3600)
        assert await client.send(UOD_INFO) == SuccessMessage()


async def test_a_message_that_is_too_large_closes_with_1009(
    dial: OpenStream, autojump_clock: MockClock
) -> None:
    """A message may have at most 16 MiB."""
    async with connected(dial) as client:
        await client.websocket.send_message("x" * (16 * 2**20))
        assert await client.call(PING, {}) == "pong"
        await client.websocket.send_message("x" * (16 * 2**20 + 1))
        await client.closed.wait()
        assert client.close_code == 1009


async def replay(client: Client, aggregator: Aggregator, conn: int) -> None:
    """Play a recorded connection: send the engine's messages, make the aggregator's calls."""
    rows = [row["text"] for row in CONVERSATION if row["conn"] == conn and "text" in row]
    results = {
        row["response"]["call_id"]: row["response"]["result"] for row in rows if row["response"]
    }
    for request in (row["request"] for row in rows if row["request"]):
        if request["method"] != DISPATCH:
            continue
        message = decode(request["arguments"]["message_json"])
        expected = decode_json(results[request["call_id"]])
        if isinstance(message, em.EngineMessage):
            assert await client.send(message) == expected
        else:
            await aggregator.call(E1, message)


async def recorded_session(dial: OpenStream, aggregator: Aggregator) -> None:
    """Play the recorded session with its restart, and check what the aggregator has kept."""
    async with connected(dial) as client:
        await replay(client, aggregator, 2)
        record = aggregator.engine()
        run_id = record.messages(em.RunStartedMsg)[0].run_id
        assert record.refused[0].refused == f"queued run log, but run {run_id} is active"
        assert record.unit.control_state == record.messages(em.ControlStateMsg)[-1].control_state
        assert record.unit.run is not None
        assert record.unit.run.run_log == record.messages(em.RunLogMsg)[-1].runlog
        await aggregator.restart()
        await client.closed.wait()
        stored = len(aggregator.plot_log[run_id]["FT01"])
    async with connected(dial) as client:
        await replay(client, aggregator, 6)
    # The reference engine's snapshot after a reconnect lacks the run id.
    refused = f"tags without run id, but run {run_id} is active"
    assert refused in [item.refused for item in record.refused]
    (run,) = aggregator.recent_runs
    assert (run.run_id, run.engine_id) == (run_id, E1)
    assert run.run_log == record.messages(em.RunStoppedMsg)[0].runlog
    assert record.unit.run is None
    ticks = [sample.tick_time for sample in aggregator.plot_log[run_id]["FT01"]]
    assert 0 < stored < len(ticks)
    assert ticks == sorted(set(ticks))
    assert len(record.notifications) == len(record.messages(em.WebPushNotificationMsg))


async def test_the_recorded_conversation_gets_the_recorded_answers(
    dial: OpenStream, autojump_clock: MockClock, aggregator: Aggregator
) -> None:
    """The recorded engine gets the recorded answers, over memory streams."""
    await recorded_session(dial, aggregator)


async def test_the_recorded_conversation_gets_the_recorded_answers_over_tcp(
    aggregator: Aggregator, nursery: trio.Nursery
) -> None:
    """The recorded engine gets the recorded answers, over TCP."""
    port: int = await nursery.start(aggregator.run)

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", port)

    await recorded_session(dial, aggregator)


async def test_the_tcp_port_is_closed_during_an_outage(
    aggregator: Aggregator, nursery: trio.Nursery
) -> None:
    """A dial is refused during an outage; after it, the same port is open again."""
    port: int = await nursery.start(aggregator.run)

    async def is_open() -> bool:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            return False
        await stream.aclose()
        return True

    async with aggregator.outage():
        while await is_open():
            pass  # the listener closes within a few turns of the scheduler
    while not await is_open():
        pass
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/health")
    assert (answer.status_code, answer.text) == (200, "healthy")


async def test_the_stand_in_speaks_tls(aggregator: Aggregator, nursery: trio.Nursery) -> None:
    """The registration and the websocket work over TLS."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    port: int = await nursery.start(partial(aggregator.run, ssl_context=server))
    async with httpx2.AsyncClient(trust_env=False, verify=client_context) as client:
        answer = await client.post(f"https://127.0.0.1:{port}/engine-rest", json=encode(REGISTER))
    assert answer.json()["success"] is True

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=client_context, https_compatible=True
        )

    async with upgraded(dial) as websocket:
        assert await websocket.call(PING, {}) == "pong"
        assert await websocket.send(UOD_INFO) == SuccessMessage()


def _dispatch(message: MessageBase) -> str:
    request = Request(DISPATCH, {"message_json": encode(message)}, uuid.uuid4().hex)
    return encode_request(request)
