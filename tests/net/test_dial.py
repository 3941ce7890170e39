"""Dialling: what goes over the wire, and the error for each failure."""

import errno
import json
import logging
import socket
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import attrs
import pytest
import trio
import wsproto.events as ws
from trio.testing import MockClock

from tests.helpers.unit import Unit
from tests.net.peer import ENGINE_ID, IDENTITY_CALL, Peer, Script, linked, register, scripted
from trio_runner import (
    AggregatorUnreachable,
    AlreadyConnected,
    DialError,
    EngineDispatcher,
    NotAnAggregator,
    SecretRefused,
    Timing,
    VersionRefused,
)
from trio_runner.net import Session, StreamOpener
from trio_runner.protocol import GET_ENGINE_ID, PING, encode, encode_json
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

SECRET = "swordfish"  # noqa: S105
UPGRADED = b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
REGISTRATION = attrs.evolve(Unit().create_register_engine_msg(), secret=SECRET)
VERSION = f"trio-runner/{version('trio-runner')}"


async def dial(
    open_stream: StreamOpener,
    *,
    host: str = "aggregator.example",
    registration: em.RegisterEngineMsg = REGISTRATION,
    timing: Timing | None = None,
    task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Dial once."""
    dispatcher = EngineDispatcher(host, handlers=Unit(), open_stream=open_stream)
    await dispatcher.dial(registration, timing or Timing(), task_status=task_status)


def secrets_in(error: BaseException | None) -> bool:
    """Tell whether the secret is in the text of an error, its causes or its members."""
    return error is not None and SECRET in "".join(traceback.format_exception(error))


async def failure(open_stream: StreamOpener, **options: Any) -> DialError:
    """Dial, expect it to fail, and return the error."""
    with pytest.raises(DialError) as caught:
        await dial(open_stream, **options)
    assert not secrets_in(caught.value)
    return caught.value


async def failure_with(*scripts: Script, **options: Any) -> DialError:
    """Dial a scripted peer, expect it to fail, and return the error."""
    async with trio.open_nursery() as nursery:
        error = await failure(scripted(nursery, *scripts), **options)
        nursery.cancel_scope.cancel()
    return error


def replies(status: int, body: str, content_type: str = "application/json") -> Script:
    """Return a script that answers the registration with this."""

    async def script(peer: Peer) -> None:
        await peer.reply(status, body, content_type)

    return script


def says(data: bytes, *, stays: bool = False) -> Script:
    """Return a script that reads a request, sends these bytes, and then closes or waits."""

    async def script(peer: Peer) -> None:
        await peer.http_request()
        await peer.send_raw(data)
        if stays:
            await trio.sleep_forever()

    return script


def raises(error: Exception) -> StreamOpener:
    """Return an opener that raises this."""

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    return open_stream


# What goes over the wire


async def test_a_dial_registers_over_http(autojump_clock: MockClock) -> None:
    """Registration is one POST of RegisterEngineMsg with the program's name."""
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.http_request())

    await failure_with(script)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == "POST /engine-rest HTTP/1.1"
    assert sorted(header.lower() for header in headers) == sorted(
        [
            "host: aggregator.example:9800",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"user-agent: {VERSION}",
        ]
    )
    assert json.loads(body) == encode(REGISTRATION)


async def test_a_dial_upgrades_with_host_and_user_agent(autojump_clock: MockClock) -> None:
    """The upgrade goes to /engine-rpc at the same host, with the same user agent."""
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.http_request())

    await failure_with(register, script)
    first, *headers = requests[0].decode().rstrip().split("\r\n")
    assert first == "GET /engine-rpc HTTP/1.1"
    lines = [header.lower() for header in headers]
    assert "host: aggregator.example:9800" in lines
    assert f"user-agent: {VERSION}" in lines


async def test_a_dial_names_an_ipv6_host_in_brackets(autojump_clock: MockClock) -> None:
    """The Host headers of both requests hold an IPv6 address as URLs do."""
    requests = []

    async def first(peer: Peer) -> None:
        requests.append(await peer.http_request())
        reply = am.RegisterEngineReplyMsg(success=True, engine_id=ENGINE_ID)
        await peer.send_raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        await peer.send_raw(encode_json(reply).encode())

    async def second(peer: Peer) -> None:
        requests.append(await peer.http_request())

    await failure_with(first, second, host="::1")
    for request in requests:
        assert b"host: [::1]:9800\r\n" in request.lower()


async def test_a_dial_takes_an_international_host_name(autojump_clock: MockClock) -> None:
    """A host name beyond ASCII goes over the wire in its ASCII form."""
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.http_request())

    await failure_with(script, host="bücher.example")
    assert b"host: xn--bcher-kva.example:9800\r\n" in requests[0].lower()


async def test_the_engine_pings_first_and_tells_its_id_when_asked(
    autojump_clock: MockClock,
) -> None:
    """The engine pings first, answers when asked for its id, and sends nothing else by itself."""
    frames = []

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        ping = await peer.frame()
        frames.append(ping)
        await peer.call(GET_ENGINE_ID, {}, IDENTITY_CALL)
        frames.append(await peer.frame())
        await peer.answer(ping, "pong")  # type: ignore[arg-type]
        await peer.listen()

    async with linked(script):
        await trio.testing.wait_all_tasks_blocked()
    assert [attrs.asdict(frame) for frame in frames] == [
        {"method": PING, "arguments": {}, "call_id": f"{1:032x}"},
        {"result": ENGINE_ID, "result_type": "str", "call_id": IDENTITY_CALL},
    ]


@pytest.mark.parametrize("first", ["pong", "question"])
async def test_a_link_is_ready_after_both_the_pong_and_the_question(
    first: str, autojump_clock: MockClock
) -> None:
    """A link is ready when the ping is answered and the id was asked for, in either order."""

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        ping = await peer.request()
        await trio.sleep(1)
        if first == "pong":
            await peer.answer(ping, "pong")
        else:
            await peer.call(GET_ENGINE_ID, {}, IDENTITY_CALL)
        await trio.sleep(1)
        if first == "pong":
            await peer.call(GET_ENGINE_ID, {}, IDENTITY_CALL)
        else:
            await peer.answer(ping, "pong")
        await peer.listen()

    start = trio.current_time()
    async with linked(script) as link:
        assert trio.current_time() - start == 2  # each of the two takes 1 s
        assert link.session.engine_id == ENGINE_ID


async def test_a_dial_reaches_the_stand_in(autojump_clock: MockClock) -> None:
    """The stand-in sees one registration and one connected engine."""
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        async with linked(open_stream=aggregator.in_memory(nursery)) as link:
            await aggregator.wait_until(lambda: aggregator.engines)
            assert link.session.engine_id == "host_Unit"
        assert [request.headers["user-agent"] for request in aggregator.requests] == [VERSION] * 2
        nursery.cancel_scope.cancel()


async def test_a_dispatcher_prints_as_its_address() -> None:
    """It prints as its address, with the default port for plain and for secure connections."""
    assert str(EngineDispatcher(handlers=Unit())) == "http://127.0.0.1:9800"
    assert str(EngineDispatcher("::1", handlers=Unit(), secure=True)) == "https://[::1]:443"


# Refusals


async def test_another_secret_is_refused(autojump_clock: MockClock) -> None:
    """With another secret, SecretRefused says to give the aggregator's."""
    reply = am.RegisterEngineReplyMsg(success=False, secret_match=False)
    error = await failure_with(replies(200, encode_json(reply)))
    assert type(error) is SecretRefused
    assert str(error) == (
        "The aggregator at http://aggregator.example:9800 refused the secret. Give this engine the"
        " secret that the aggregator was started with (--secret-file FILE)."
    )


async def test_another_version_is_refused(autojump_clock: MockClock) -> None:
    """With another version, VersionRefused names both, and has the wanted one as an attribute."""
    reply = am.RegisterEngineReplyMsg(
        success=False, secret_match=True, version_match=False, aggregator_build_number="9.8.7"
    )
    error = await failure_with(replies(200, encode_json(reply)))
    assert type(error) is VersionRefused
    assert error.wanted == "9.8.7"
    assert (
        "wants engines of version 9.8.7, and this one is 0.1.1585. Install that version, or"
        in str(error)
    )


@pytest.mark.parametrize("matches", [True, None])
async def test_a_second_connection_of_an_engine_is_refused(
    matches: bool | None, autojump_clock: MockClock
) -> None:
    """If neither secret nor version is the reason, an engine of this name is connected."""
    reply = am.RegisterEngineReplyMsg(success=False, secret_match=matches, version_match=matches)
    error = await failure_with(replies(200, encode_json(reply)))
    assert type(error) is AlreadyConnected
    assert (
        "still holds a connection of an engine named Unit. If no other engine of that name runs"
    ) in str(error)


async def test_the_stand_in_refuses_a_second_engine(autojump_clock: MockClock) -> None:
    """The stand-in's refusals arrive as the same errors."""
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        open_stream = aggregator.in_memory(nursery)
        async with linked(open_stream=open_stream):
            error = await failure(open_stream, registration=attrs.evolve(REGISTRATION, secret=""))
            assert type(error) is AlreadyConnected
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "Not Found"),
        (200, "<html>It works!</html>"),
        (200, '{"answer": 42}'),
        (200, "[]"),
        (200, "\x00"),
        (200, encode_json(am.CancelMsg(exec_id="1"))),
        (418, "I am a teapot"),
    ],
)
async def test_another_http_server_is_no_aggregator(
    status: int, body: str, autojump_clock: MockClock
) -> None:
    """An HTTP server that knows no registration: NotAnAggregator with the status."""
    error = await failure_with(replies(status, body))
    assert type(error) is NotAnAggregator
    assert str(error) == (
        "What answers at http://aggregator.example:9800 is not an Open Pectus aggregator (HTTP"
        f" status {status} for a registration). Check host, port and path."
    )


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_gateway_without_an_aggregator_is_unreachable(
    status: int, autojump_clock: MockClock
) -> None:
    """If a reverse proxy finds no aggregator, that is unreachable and not another program."""
    for before, what in ((), "registration"), ((register,), "websocket"):
        error = await failure_with(*before, replies(status, "<html>", "text/html"))
        assert type(error) is AggregatorUnreachable
        assert str(error) == (
            "A proxy answers for the aggregator at http://aggregator.example:9800 (HTTP status"
            f" {status} for a {what}). Is the aggregator running behind the proxy?"
        )


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\nInvalid SSH identification string.\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        b"S",
    ],
)
@pytest.mark.parametrize("stays", [False, True])
async def test_no_http_at_all_is_no_aggregator(
    banner: bytes, stays: bool, autojump_clock: MockClock
) -> None:
    """A peer that speaks no HTTP is recognized at once, whether it closes or waits."""
    start = trio.current_time()
    error = await failure_with(says(banner, stays=stays))
    assert type(error) is NotAnAggregator
    assert "does not speak HTTP" in str(error)
    assert "secure connection" in str(error)
    assert trio.current_time() == start


async def test_a_reply_without_end_is_no_aggregator(autojump_clock: MockClock) -> None:
    """A body of more than 64 KiB is not read to its end."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n"
    error = await failure_with(says(head + bytes(100_000), stays=True))
    assert type(error) is NotAnAggregator
    assert "without end" in str(error)


@pytest.mark.parametrize("status", [403, 404, 200])
async def test_a_refused_websocket_is_no_aggregator(status: int, autojump_clock: MockClock) -> None:
    """A server that registers but refuses the websocket gives NotAnAggregator with the status."""
    error = await failure_with(register, replies(status, "no", "text/plain"))
    assert type(error) is NotAnAggregator
    assert f"(HTTP status {status} for a websocket)" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        UPGRADED + b"sec-websocket-accept: wrong\r\n\r\n",
        UPGRADED + b"sec-websocket-protocol: \xff\r\n\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ],
)
async def test_a_wrong_websocket_handshake_is_no_aggregator(
    data: bytes, autojump_clock: MockClock
) -> None:
    """A wrong answer to the upgrade gives NotAnAggregator, and does not look like our bug."""
    error = await failure_with(register, says(data, stays=True))
    assert type(error) is NotAnAggregator
    assert "does not speak websocket" in str(error)


# Nobody there


async def test_a_refused_connection_is_unreachable(autojump_clock: MockClock) -> None:
    """A host that refuses at once is up, and a try costs nothing, so `refused` is set."""
    error = await failure(raises(ConnectionRefusedError(errno.ECONNREFUSED, "refused")))
    assert type(error) is AggregatorUnreachable
    assert error.refused
    assert str(error) == (
        "Nothing answers at http://aggregator.example:9800: connection refused. Is the aggregator"
        " running there?"
    )


async def test_a_name_refuses_only_if_all_its_addresses_refuse(autojump_clock: MockClock) -> None:
    """A name with several addresses refuses when all of them do, not when one does."""
    refused, unreachable = ConnectionRefusedError(1, "no"), OSError(errno.EHOSTUNREACH, "no route")
    every, some = OSError("all failed"), OSError("all failed")
    every.__cause__ = ExceptionGroup("", [refused, refused])
    some.__cause__ = ExceptionGroup("", [refused, unreachable])
    assert (await failure(raises(every))).refused
    assert not (await failure(raises(some))).refused


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        UnicodeError("encoding with 'idna' codec failed (label empty or too long)"),
    ],
)
async def test_an_unknown_host_is_unreachable(error: Exception, autojump_clock: MockClock) -> None:
    """A name that does not resolve, or cannot be a name, is in the error's text."""
    told = await failure(raises(error))
    assert type(told) is AggregatorUnreachable
    assert not told.refused
    assert str(told) == "The host aggregator.example is unknown. Is its name right?"


async def test_a_name_that_cannot_be_one_is_unreachable() -> None:
    """A name with an empty label, which is never resolved, is unknown too."""
    told = await failure(trio.open_tcp_stream, host="a..b")
    assert str(told) == "The host a..b is unknown. Is its name right?"


async def black_hole(host: str, port: int) -> trio.abc.Stream:
    """Take a dial and never answer."""
    await trio.sleep_forever()
    raise AssertionError


async def silent(peer: Peer) -> None:
    """Script: accept the connection and say nothing."""
    await trio.sleep_forever()


async def no_pong(peer: Peer) -> None:
    """Script: ask for the id, but never answer the ping."""
    await peer.upgrade()
    await peer.call(GET_ENGINE_ID, {}, IDENTITY_CALL)
    await peer.listen()


async def no_question(peer: Peer) -> None:
    """Script: answer the ping, but never ask for the id."""
    await peer.upgrade()
    await peer.answer(await peer.request(), "pong")
    await peer.listen()


async def half_handshake(peer: Peer) -> None:
    """Script: close in the middle of the handshake."""
    await peer.http_request()
    await peer.send_raw(b"HTTP/1.1 101 Switch")


async def no_answer_to_upgrade(peer: Peer) -> None:
    """Script: close when the answer to the upgrade is due."""
    await peer.http_request()


async def closes_before_the_upgrade(peer: Peer) -> None:
    """Script: close before the request for the upgrade has arrived."""


@pytest.mark.parametrize(
    "script", [half_handshake, no_answer_to_upgrade, closes_before_the_upgrade]
)
async def test_a_close_instead_of_a_websocket_is_told_at_once(
    script: Script, autojump_clock: MockClock
) -> None:
    """A stream that ends when the answer to the upgrade is due is reported as that, at once."""
    start = trio.current_time()
    error = await failure_with(register, script)
    assert trio.current_time() == start
    assert type(error) is AggregatorUnreachable
    assert str(error) == (
        "The connection to http://aggregator.example:9800 was closed when this engine asked for a"
        " websocket. Is the aggregator just starting or stopping, or does a proxy or a firewall on"
        " the way block websockets?"
    )


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.0 503 Service Unavailable\r\ncontent-type: text/html\r\n\r\n<html>",
        b"HTTP/1.1 503 X\r\ncontent-length: 100\r\n\r\n<html>",
        b"HTTP/1.1 503 X\r\n\r\n" + bytes(100_000),
    ],
)
async def test_a_refused_websocket_is_told_at_once_if_its_body_ends_with_the_stream(
    refusal: bytes, autojump_clock: MockClock
) -> None:
    """The status counts, no matter where the body ends."""
    start = trio.current_time()
    error = await failure_with(register, says(refusal))
    assert trio.current_time() == start
    assert "HTTP status 503 for a websocket" in str(error)


@pytest.mark.parametrize(
    "scripts",
    [
        (silent,),
        (says(b"", stays=True),),
        (says(b"HTTP/1.1 200 OK\r\ncontent-le", stays=True),),
        (register, silent),
        (register, half_handshake),
        (register, no_answer_to_upgrade),
        (register, no_pong),
        (register, no_question),
    ],
)
async def test_a_dial_has_ten_seconds(
    scripts: tuple[Script, ...], autojump_clock: MockClock
) -> None:
    """Wherever a peer stops answering, the dial ends after 10 s at most."""
    start = trio.current_time()
    error = await failure_with(*scripts)
    assert type(error) is AggregatorUnreachable
    assert not error.refused
    assert trio.current_time() - start <= 10
    if trio.current_time() - start == 10:
        assert error.in_line
        assert str(error) == (
            "http://aggregator.example:9800 did not let us in within 10 s. It accepts connections:"
            " is it busy, or does it hang?"
        )


async def test_a_black_hole_is_given_up_after_ten_seconds(autojump_clock: MockClock) -> None:
    """An address that never answers is given up after 10 s."""
    start = trio.current_time()
    error = await failure(black_hole)
    assert type(error) is AggregatorUnreachable
    assert not error.in_line
    assert str(error).endswith("Is the host up, and is there a firewall in between?")
    assert trio.current_time() - start == 10


async def test_the_ten_seconds_are_for_the_whole_dial(autojump_clock: MockClock) -> None:
    """Time spent on the registration is not available for the rest."""

    async def slow(peer: Peer) -> None:
        await trio.sleep(9)
        await peer.register()

    start = trio.current_time()
    error = await failure_with(slow, no_pong)
    assert type(error) is AggregatorUnreachable
    assert trio.current_time() - start == 10  # 9 for the registration, 1 for the ping


async def closes_at_once(peer: Peer) -> None:
    """Script: accept and close."""


@pytest.mark.parametrize(
    "script",
    [
        closes_at_once,
        says(b""),
        says(b"HTTP/1.1 20"),
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
    ],
)
async def test_a_close_during_the_registration_is_unreachable(
    script: Script, autojump_clock: MockClock
) -> None:
    """If the connection closes before the whole reply, the aggregator may just start or stop."""
    error = await failure_with(script)
    assert type(error) is AggregatorUnreachable
    assert "closed during the registration" in str(error)


@pytest.mark.parametrize("code", [1000, 1012])
async def test_a_close_before_the_link_is_ready_is_a_failed_dial(
    code: int, autojump_clock: MockClock
) -> None:
    """A websocket that closes before it is ready is not a lost link, since there was none."""

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.request()
        await peer.send_event(ws.CloseConnection(code=code))
        await peer.listen()

    error = await failure_with(register, script)
    assert type(error) is AggregatorUnreachable
    assert f"closed the connection with code {code}" in str(error)


async def test_a_wrong_pong_is_a_failed_dial(autojump_clock: MockClock) -> None:
    """A wrong answer to the ping fails the dial."""

    async def script(peer: Peer) -> None:
        await peer.upgrade()
        await peer.answer(await peer.request(), "ping")
        await peer.listen()

    error = await failure_with(register, script)
    assert "answered a ping with 'ping'" in str(error)


async def test_proxy_variables_do_not_affect_a_given_network(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and the like do not affect the registration or the websocket."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
        monkeypatch.setenv(name.lower(), "http://proxy.example:3128")
    dialled = []
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        open_in_memory = aggregator.in_memory(nursery)

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            dialled.append((host, port))
            return await open_in_memory(host, port)

        async with linked(open_stream=open_stream):
            pass
        nursery.cancel_scope.cancel()
    assert dialled == [("aggregator.example", 9800)] * 2
    assert [request.path for request in aggregator.requests] == ["/engine-rest", "/engine-rpc"]


async def test_the_secret_is_not_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The secret is in no log and in no error's text, even if a peer echoes it."""
    caplog.set_level(logging.DEBUG, "trio_runner")

    async def echo(peer: Peer) -> None:
        await peer.send_raw(b"HTTP/1.1 200 OK\r\n" + await peer.http_request())

    async def echo_raw(peer: Peer) -> None:
        await peer.send_raw(await peer.http_request())

    async def echo_body(peer: Peer) -> None:
        _, _, body = (await peer.http_request()).partition(b"\r\n\r\n")
        await peer.send_raw(body)

    async def echo_body_as_header(peer: Peer) -> None:
        _, _, body = (await peer.http_request()).partition(b"\r\n\r\n")
        await peer.send_raw(b"HTTP/1.1 200 OK\r\n" + body + b"\r\n\r\n")

    for script in (echo, echo_raw, echo_body, echo_body_as_header):
        assert type(await failure_with(script)) is NotAnAggregator
    assert any(line.startswith("Registering for engine id") for line in caplog.messages)
    assert SECRET not in caplog.text


# Cancellation


@attrs.define(eq=False)
class BeforeStep(trio.abc.Instrument):
    """An instrument that does something once, right before the n-th step of any task."""

    n: int
    action: Callable[[], object]

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.n -= 1
        if self.n == 0:
            self.action()


async def dial_disturbed(
    n: int, disturb: Callable[[trio.CancelScope], object], script: Script
) -> tuple[bool, list[trio.abc.Stream]]:
    """Dial with a disturbance before the n-th step; return whether it happened, and the streams."""
    streams: list[trio.abc.Stream] = []
    living = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as peers:
        open_in_memory = scripted(peers, register, script)

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            streams.append(await open_in_memory(host, port))
            return streams[-1]

        with trio.fail_after(60), trio.CancelScope() as scope:
            step = BeforeStep(n, lambda: disturb(scope))
            trio.lowlevel.add_instrument(step)
            try:
                await dial_and_abort(open_stream)
            finally:
                trio.lowlevel.remove_instrument(step)
        peers.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == living
    return step.n <= 0, streams


async def dial_and_abort(open_stream: StreamOpener) -> None:
    """Dial as the runner does: abort the session when the link's block ends."""
    async with trio.open_nursery() as nursery:
        session = await nursery.start(dial_as_task, open_stream)
        try:
            await trio.lowlevel.checkpoint()
        finally:
            session.abort()


async def dial_as_task(open_stream: StreamOpener, *, task_status: trio.TaskStatus[Session]) -> None:
    await dial(open_stream, task_status=task_status)


async def polite(peer: Peer) -> None:
    """Script: open the link and listen."""
    await peer.open()
    await peer.listen()


async def is_closed(stream: trio.abc.Stream) -> bool:
    """Tell whether our end of a stream is closed."""
    try:
        await stream.send_all(b"x")
    except trio.ClosedResourceError:
        return True
    except trio.BrokenResourceError:
        return False
    return False


async def test_a_dial_cancelled_at_any_step_leaves_nothing(autojump_clock: MockClock) -> None:
    """Whenever a dial is cancelled, it ends at once and leaves no task and no open stream."""
    n, came = 0, True
    while came:
        n += 1
        start = trio.current_time()
        came, streams = await dial_disturbed(n, lambda scope: scope.cancel(), polite)
        assert trio.current_time() == start
        assert all([await is_closed(stream) for stream in streams])
    assert n > 50  # a dial has more steps than this; fewer would mean that it was not disturbed


async def test_a_clock_that_leaps_at_any_step_at_most_fails_the_dial(
    autojump_clock: MockClock,
) -> None:
    """After a suspend every deadline has passed: the dial works, or fails like a slow one."""
    n, came = 0, True
    while came:
        n += 1
        try:
            came, streams = await dial_disturbed(n, lambda _: autojump_clock.jump(60), polite)
        except* AggregatorUnreachable:
            streams = []
        except* trio.TooSlowError:
            streams = []
        assert all([await is_closed(stream) for stream in streams])
    assert n > 50


async def test_a_cancelled_dial_raises_the_cancellation_unchanged(
    autojump_clock: MockClock,
) -> None:
    """A cancellation is not its own cause."""
    caught: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 1
        try:
            await dial(black_hole)
        except trio.Cancelled as error:
            caught.append(error)
            raise
    assert len(caught) == 1
    assert caught[0].__cause__ is None


async def test_a_bug_in_an_opener_is_raised_unchanged(autojump_clock: MockClock) -> None:
    """An error that is not the network's is not turned into a network error."""
    with pytest.raises(LookupError) as caught:
        await dial(raises(LookupError("bug")))
    assert caught.value.__cause__ is None
