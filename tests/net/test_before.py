"""When something in front of the aggregator answers instead, the error says what to do."""

import pytest
import trio
from trio.testing import MockClock

from tests.helpers.unit import Middle, Unit
from tests.net.peer import ENGINE_ID, Peer, Script, http_response, register, scripted
from trio_runner import (
    AggregatorUnreachable,
    DialError,
    EngineDispatcher,
    EngineRunner,
    NotAnAggregator,
    Timing,
)
from trio_runner.net._http import Reply
from trio_runner.net._replies import RETRY_AFTER_MAX_S, Asked, retry_after_s, why_not
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import encode_json

HERE = "http://aggregator.example:9800"
STEPS = pytest.mark.parametrize(
    ("before", "what"), [((), "registration"), ((register,), "websocket")], ids=["post", "get"]
)


def answers(head: str, body: str = "") -> Script:
    """Return a script that answers a request with this."""

    async def script(peer: Peer) -> None:
        await peer.http_request()
        lines = [f"HTTP/1.1 {head}", f"content-length: {len(body)}", "", body]
        await peer.send_raw("\r\n".join(lines).encode())

    return script


async def failure_with(*scripts: Script) -> DialError:
    """Dial a scripted peer, expect it to fail, and return the error."""
    async with trio.open_nursery() as nursery:
        opener = scripted(nursery, *scripts)
        dispatcher = EngineDispatcher("aggregator.example", handlers=Unit(), open_stream=opener)
        with pytest.raises(DialError) as caught:
            await dispatcher.dial(Unit().create_register_engine_msg(), Timing())
        nursery.cancel_scope.cancel()
    return caught.value


@STEPS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_https_says_to_use_secure(
    status: int, before: tuple[Script, ...], what: str, autojump_clock: MockClock
) -> None:
    """The error says where the engine is redirected to, and how to go there."""
    to = "https://aggregator.example/engine-rest"
    error = await failure_with(*before, answers(f"{status} X\r\nLocation: {to}"))
    assert type(error) is NotAnAggregator
    assert str(error) == (
        f"{HERE} redirects this engine to {to} (HTTP status {status} for a {what}). Use a secure"
        " connection (--secure) to that host, port and path."
    )


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("http://other.example/", "to http://other.example/ (HTTP status 302 for a registration)."),
        ("http://other.example/", "Give the host, port and path of the aggregator itself."),
        ("/login?next=engine-rest", "Check the path, and whether it wants a login that an engine"),
        ("", "redirects this engine elsewhere, without saying where (HTTP status 302"),
        ("x" * 5000, "x" * 197 + "... (HTTP"),
    ],
)
async def test_a_redirect_elsewhere_says_where_to(
    location: str, told: str, autojump_clock: MockClock
) -> None:
    """It may be redirected to a login page, another host, or nowhere."""
    error = await failure_with(answers(f"302 Found\r\nLocation: {location}"))
    assert type(error) is NotAnAggregator
    assert told in str(error)


@STEPS
@pytest.mark.parametrize(
    ("head", "told"),
    [
        (
            '401 X\r\nWWW-Authenticate: Basic realm="x"',
            (
                f"{HERE} wants a login before it lets anyone through to the aggregator (HTTP status"
                " 401 for a"
                " {what}, by Basic). An engine cannot log in: ask the administrator there to let"
                " /engine-rest and"
                " /engine-rpc through without a login."
            ),
        ),
        (
            "403 X",
            (
                f"{HERE} does not let this engine through to the aggregator (HTTP status 403 for a"
                " {what}). Ask the administrator there to let requests from this computer to"
                " /engine-rest and /engine-rpc through."
            ),
        ),
        (
            "407 X\r\nProxy-Authenticate: Basic",
            (
                f"A proxy on the way to {HERE} wants a login (HTTP status 407 for a"
                " {what}). Give it in --proxy http://USER:PASSWORD@HOST:PORT."
            ),
        ),
    ],
)
async def test_a_wanted_login_is_named_as_the_reason(
    head: str, told: str, before: tuple[Script, ...], what: str, autojump_clock: MockClock
) -> None:
    """The error says that a login is wanted; a person can change that at the proxy."""
    error = await failure_with(*before, answers(head))
    assert type(error) is NotAnAggregator
    assert str(error) == told.replace("{what}", what)


async def test_a_registration_that_is_too_long_is_told_with_its_length(
    autojump_clock: MockClock,
) -> None:
    """The person who runs the proxy needs the figure."""
    bodies = []

    async def script(peer: Peer) -> None:
        bodies.append((await peer.http_request()).partition(b"\r\n\r\n")[2])
        await peer.send_raw(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n")

    error = await failure_with(script)
    assert type(error) is NotAnAggregator
    assert f"does not accept a request of {len(bodies[0])} bytes (HTTP status 413" in str(error)
    assert str(error).endswith("for a higher limit (nginx: client_max_body_size).")


@STEPS
async def test_a_host_name_that_is_not_served_is_named_as_the_reason(
    before: tuple[Script, ...], what: str, autojump_clock: MockClock
) -> None:
    """The engine dials an address; Caddy with client certificates wants the name."""
    error = await failure_with(*before, answers("421 Misdirected Request"))
    assert type(error) is NotAnAggregator
    assert f"does not serve that name (HTTP status 421 for a {what}). Use the" in str(error)


@STEPS
@pytest.mark.parametrize("status", [500, 507, 520])
async def test_a_server_error_is_not_taken_for_another_program(
    status: int, before: tuple[Script, ...], what: str, autojump_clock: MockClock
) -> None:
    """It may well come from the aggregator, and its log says why."""
    error = await failure_with(*before, answers(f"{status} X"))
    assert type(error) is AggregatorUnreachable
    assert str(error) == (
        f"What answers at {HERE} has failed (HTTP status {status} for a {what}). The log of the"
        " aggregator, or of the proxy in front of it, says why."
    )


@pytest.mark.parametrize("status", [200, 400, 404, 426])
async def test_an_upgrade_that_is_not_passed_on_is_named_as_the_reason(
    status: int, autojump_clock: MockClock
) -> None:
    """The registration was accepted, so host and port are right."""
    error = await failure_with(register, answers(f"{status} X"))
    assert type(error) is NotAnAggregator
    assert f"{HERE} accepted the registration but not the websocket (HTTP status {status}" in str(
        error
    )
    assert "let it pass on the upgrade (nginx: proxy_http_version 1.1" in str(error)


PLAIN_TO_HTTPS = [
    "<center>The plain HTTP request was sent to HTTPS port</center>",  # nginx
    "Client sent an HTTP request to an HTTPS server.\n",  # Caddy
    "You're speaking plain HTTP to an SSL-enabled server port.<br />",  # Apache
]


@pytest.mark.parametrize("body", PLAIN_TO_HTTPS)
async def test_plain_http_to_an_https_port_says_to_use_secure(
    body: str, autojump_clock: MockClock
) -> None:
    """Servers say so only in a page for people."""
    error = await failure_with(answers("400 Bad Request", body))
    assert type(error) is NotAnAggregator
    assert str(error) == (
        f"{HERE} wants a secure connection (HTTP status 400 for a registration). Use one"
        " (--secure)."
    )


@pytest.mark.parametrize("what", ["registration", "websocket"])
@pytest.mark.parametrize(
    "body",
    ["<center>No required SSL certificate was sent</center>", "The SSL certificate error"],
)
def test_a_wanted_client_certificate_names_the_options(what: str, body: str) -> None:
    """The error names the options; nginx, for one, asks for it in a page."""
    reply = Reply(400, [], body.encode())
    error = why_not(Asked("https://a.example:443", True, what), reply)
    assert str(error) == (
        "https://a.example:443 wants a client certificate. Give this engine the one that was"
        " issued for it (--client-cert FILE --client-key FILE), or ask the administrator there to"
        " let engines in without one."
    )


# Retry-After

NOW = (b"Date", b"Wed, 21 Oct 2026 07:28:00 GMT")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 0),
        ([(b"Retry-After", b"120")], 120),
        ([(b"retry-after", b"0")], 0),
        ([(b"Retry-After", b"86400")], RETRY_AFTER_MAX_S),
        ([(b"Retry-After", b"9" * 5000)], RETRY_AFTER_MAX_S),
        ([(b"Retry-After", b"-1")], 0),
        ([(b"Retry-After", b"soon")], 0),
        ([(b"Retry-After", b"\xb2")], 0),  # a digit that is no number
        ([NOW, (b"Retry-After", b"Wed, 21 Oct 2026 07:29:30 GMT")], 90),
        ([NOW, (b"Retry-After", b"Wed, 21 Oct 2026 07:27:00 GMT")], 0),
        ([NOW, (b"Retry-After", b"Fri, 31 Dec 9999 23:59:59 GMT")], RETRY_AFTER_MAX_S),
        ([(b"Retry-After", b"Wed, 21 Oct 2026 07:29:30 GMT")], 0),  # by an unknown clock
    ],
)
def test_retry_after_is_read_as_seconds_or_date(
    headers: list[tuple[bytes, bytes]], seconds: float
) -> None:
    """A date is read by the server's clock; no server may keep an engine away for over 10 min."""
    assert retry_after_s(Reply(429, headers, b"")) == seconds


@STEPS
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (429, "gets too many requests from here"),
        (503, "A proxy answers for the aggregator"),
        (500, "has failed"),
    ],
)
async def test_retry_after_is_in_the_error(
    status: int, told: str, before: tuple[Script, ...], what: str, autojump_clock: MockClock
) -> None:
    """The error carries it to the code that waits."""
    error = await failure_with(*before, answers(f"{status} X\r\nRetry-After: 120"))
    assert type(error) is AggregatorUnreachable
    assert told in str(error)
    assert f"(HTTP status {status} for a {what})" in str(error)
    assert str(error).endswith("It asks clients to wait 120 s, and this engine does.")
    assert error.retry_after_s == 120


async def test_retry_after_is_obeyed(autojump_clock: MockClock) -> None:
    """The next dial waits 120 s and a part of a minute; the one after that comes as usual."""
    dials = []
    unit = Unit()

    async with trio.open_nursery() as nursery:
        opener = scripted(
            nursery, answers("429 X\r\nRetry-After: 120"), answers("429 X"), answers("429 X")
        )

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            dials.append(trio.current_time())
            return await opener(host, port)

        dispatcher = EngineDispatcher("aggregator.example", handlers=unit, open_stream=open_stream)
        runner = EngineRunner(dispatcher, unit, unit, rng=Middle())
        await nursery.start(runner.run)
        await trio.sleep(143)
        nursery.cancel_scope.cancel()
    # 120 + 0.5 * 11/16 * 60 = 140.625 (`Middle`), and 1.375 s later.
    assert dials == [0, 140.625, 142]


# A path


async def test_a_path_is_put_before_both_requests(autojump_clock: MockClock) -> None:
    """A proxy may have the aggregator under a path."""
    lines = []

    async def listens(peer: Peer) -> None:
        lines.append((await peer.http_request()).partition(b"\r\n")[0])

    async def registers(peer: Peer) -> None:
        lines.append((await peer.http_request()).partition(b"\r\n")[0])
        reply = am.RegisterEngineReplyMsg(success=True, engine_id=ENGINE_ID)
        await peer.send_raw(http_response(200, encode_json(reply), "application/json"))

    async with trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(
            "aggregator.example",
            handlers=Unit(),
            path="/lab/pectus/",
            open_stream=scripted(nursery, registers, listens),
        )
        assert str(dispatcher) == f"{HERE}/lab/pectus"
        with pytest.raises(DialError):
            await dispatcher.dial(Unit().create_register_engine_msg(), Timing())
        nursery.cancel_scope.cancel()
    assert lines == [
        b"POST /lab/pectus/engine-rest HTTP/1.1",
        b"GET /lab/pectus/engine-rpc HTTP/1.1",
    ]
