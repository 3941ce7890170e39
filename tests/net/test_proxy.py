"""HTTP proxies: the tunnel through them, their environment variables, and what goes wrong."""

import base64
import errno
import socket
import sys
import traceback
from typing import Any

import httpx2
import pytest
import trio
from trio.testing import MockClock

from tests.helpers.unit import Unit
from tests.net.peer import Peer, PeerGone, Script, scripted
from trio_runner import (
    AggregatorUnreachable,
    DialError,
    EngineDispatcher,
    NotAnAggregator,
    ProxyUnusable,
    Timing,
)
from trio_runner.net import StreamOpener
from trio_runner.net._proxy import make_proxy, proxy_of_environment
from trio_runner.simulation import Aggregator

PROXY = "http://proxy.example:3128"
PASSWORD = "open:sesame@"  # noqa: S105
LOGIN = "http://ali:open%3Asesame%40@proxy.example:3128"


def replies(head: str) -> Script:
    """Return a script that answers CONNECT with this."""

    async def script(peer: Peer) -> None:
        await peer.http_request()
        await peer.send_raw(f"HTTP/1.1 {head}\r\n\r\n".encode())

    return script


async def failure(open_stream: StreamOpener, proxy: str = PROXY) -> DialError:
    """Dial through the proxy, expect it to fail, and return the error."""
    dispatcher = EngineDispatcher(
        "aggregator.example", handlers=Unit(), proxy=proxy, open_stream=open_stream
    )
    with pytest.raises(DialError) as caught:
        await dispatcher.dial(Unit().create_register_engine_msg(), Timing())
    text = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in text
    assert base64.b64encode(f"ali:{PASSWORD}".encode()).decode() not in text
    return caught.value


async def failure_with(script: Script, proxy: str = PROXY) -> DialError:
    """Dial through a scripted proxy."""
    async with trio.open_nursery() as nursery:
        error = await failure(scripted(nursery, script), proxy)
        nursery.cancel_scope.cancel()
    return error


def raises(error: Exception) -> StreamOpener:
    """Return an opener that raises this."""

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    return open_stream


async def pipe(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    """Carry bytes one way until they end."""
    async for data in source:
        await sink.send_all(bytes(data))


@pytest.mark.parametrize("host", ["aggregator.example", "::1", "bücher.example"])
async def test_the_registration_and_the_websocket_go_through_the_proxy(
    host: str, autojump_clock: MockClock
) -> None:
    """Both use CONNECT with the URL's login; nothing else is dialled."""
    requests, dialled = [], []
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        to_aggregator = aggregator.in_memory(nursery)

        async def tunnel(peer: Peer) -> None:
            requests.append(await peer.http_request())
            await peer.send_raw(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = await to_aggregator(host, 9800)
            async with trio.open_nursery() as both:
                both.start_soon(pipe, peer.stream, other)
                await pipe(other, peer.stream)
                both.cancel_scope.cancel()
            raise PeerGone

        to_proxy = scripted(nursery, tunnel, tunnel)

        async def open_stream(to: str, port: int) -> trio.abc.Stream:
            dialled.append((to, port))
            return await to_proxy(to, port)

        dispatcher = EngineDispatcher(host, handlers=Unit(), proxy=LOGIN, open_stream=open_stream)
        dial: Any = dispatcher.dial
        session = await nursery.start(dial, Unit().create_register_engine_msg(), Timing())
        await aggregator.wait_until(lambda: list(aggregator.engines) == [session.engine_id])
        session.abort()
        nursery.cancel_scope.cancel()
    assert dialled == [("proxy.example", 3128)] * 2
    target = {"::1": "[::1]", "bücher.example": "xn--bcher-kva.example"}.get(host, host)
    for request in requests:
        first, *headers = request.decode().rstrip().lower().split("\r\n")
        assert first == f"connect {target}:9800 http/1.1"
        assert f"host: {target}:9800" in headers
        login = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
        assert f"proxy-authorization: basic {login}".lower() in headers


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            (
                f"Nothing answers at the proxy {PROXY}: connection refused. Is its address right,"
                " and is it running? Use --no-proxy to do without it."
            ),
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            f"The host of the proxy {PROXY} is unknown. Is its name right?",
        ),
        (OSError(errno.EHOSTUNREACH, "No route"), f"The connection to the proxy {PROXY} failed:"),
    ],
)
async def test_a_proxy_out_of_reach_is_named(
    error: Exception, told: str, autojump_clock: MockClock
) -> None:
    """Refused, unknown or no route: the error blames the proxy, not the aggregator."""
    failed = await failure(raises(error))
    assert type(failed) is AggregatorUnreachable
    assert str(failed).startswith(told)
    assert failed.refused == isinstance(error, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("head", "proxy", "told"),
    [
        (
            "407 X\r\nProxy-Authenticate: Basic realm=x",
            PROXY,
            (
                f"The proxy {PROXY} wants a login (HTTP status 407). Give it in the proxy's URL:"
                " http://USER:PASSWORD@HOST:PORT."
            ),
        ),
        (
            "407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: basic realm=x",
            LOGIN,
            (
                f"The proxy {PROXY} refused the login of user ali (HTTP status 407). Check the"
                " user and the password in its URL; write special characters as %XX."
            ),
        ),
        (
            "401 X",  # from tinyproxy
            LOGIN,
            (
                f"The proxy {PROXY} refused the login of user ali (HTTP status 401). Check the"
                " user and the password in its URL; write special characters as %XX."
            ),
        ),
        (
            "407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM",
            LOGIN,
            (
                f"The proxy {PROXY} wants a login by Negotiate or NTLM (HTTP status 407), and this"
                " engine can log in only by Basic. Ask its administrator to allow Basic or no"
                " login, or run a local proxy in between that can log in."
            ),
        ),
        (
            "403 Forbidden",
            PROXY,
            (
                f"The proxy {PROXY} does not allow a connection to aggregator.example:9800 (HTTP"
                " status 403). Ask its administrator to allow CONNECT to that host and port. If"
                " the aggregator can be reached without the proxy, use --no-proxy or NO_PROXY."
            ),
        ),
    ],
)
async def test_a_refusal_by_the_proxy_says_what_to_do(
    head: str, proxy: str, told: str, autojump_clock: MockClock
) -> None:
    """It may want a login or forbid the way; the error never contains the password."""
    error = await failure_with(replies(head), proxy)
    assert type(error) is NotAnAggregator
    assert str(error) == told


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_proxy_that_finds_no_aggregator_is_named_as_the_reason(
    status: int, autojump_clock: MockClock
) -> None:
    """The proxy may know the aggregator by another name."""
    error = await failure_with(replies(f"{status} X\r\nRetry-After: 20"))
    assert type(error) is AggregatorUnreachable
    assert str(error).startswith(
        f"The proxy {PROXY} could not connect to aggregator.example:9800 (HTTP status {status})."
        " Is the aggregator running there, and does the proxy know it by that name?"
    )
    assert error.retry_after_s == (20 if status == 503 else 0)


async def test_something_that_is_no_proxy_is_named_as_the_reason(autojump_clock: MockClock) -> None:
    """It may speak no HTTP, close, or never answer."""

    async def banner(peer: Peer) -> None:
        await peer.http_request()
        await peer.send_raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    async def echo(peer: Peer) -> None:
        await peer.send_raw(b"HTTP/1.1 200 OK\r\n" + await peer.http_request())

    async def closes(peer: Peer) -> None:
        await peer.http_request()

    async def silent(peer: Peer) -> None:
        await trio.sleep_forever()

    for script in (banner, echo):
        error = await failure_with(script, LOGIN)
        assert str(error) == (
            f"What answers at the proxy {PROXY} does not speak HTTP. Check its host and port."
        )
    error = await failure_with(closes)
    assert str(error).startswith(f"The proxy {PROXY} closed the connection before it opened a way")
    start = trio.current_time()
    error = await failure_with(silent)
    assert trio.current_time() - start == 10
    assert str(error).startswith(
        f"http://aggregator.example:9800 through the proxy {PROXY} did not let us in within 10 s."
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "socks5://proxy.example:1080",
        "http://",
        "http://user:secret@:3128",
        "http://user:secret@proxy.example:http",
        "http://user:secret@proxy.example:99999",
        "http://user:secret@[::1",
        "http://user:secret@proxy.example/path",
    ],
)
def test_an_unusable_proxy_url_is_refused_without_showing_its_password(url: str) -> None:
    """It is refused at once, whatever is wrong with it."""
    with pytest.raises(ProxyUnusable, match="http://HOST:PORT") as caught:
        EngineDispatcher(handlers=Unit(), proxy=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://user:secret@proxy.example/", "https://proxy.example:443"),
        ("http://[::1]:3128", "http://[::1]:3128"),
    ],
)
def test_a_proxy_is_shown_without_its_login(url: str, shown: str) -> None:
    """Errors and the log show it like that."""
    proxy = make_proxy(url, trio.open_tcp_stream)
    assert str(proxy) == shown
    assert "secret" not in repr(proxy)


# The environment

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ALL = {"HTTP_PROXY": "http://h:1", "HTTPS_PROXY": "http://s:2", "ALL_PROXY": "http://a:3"}


@pytest.mark.skipif(sys.platform != "linux", reason="the system has settings of its own")
@pytest.mark.parametrize("host", ["lab.example", "www.lab.example", "10.1.2.3", "::1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        ALL,
        {"http_proxy": "lower:8080"},
        {"ALL_PROXY": "http://a:3"},
        {"HTTP_PROXY": "", "ALL_PROXY": "a:3"},
        *(
            ALL | {"NO_PROXY": exempt}
            for exempt in (
                "",
                "*",
                "lab.example",
                "LAB.example, x",
                ".lab.example",
                "*.lab.example",
                "ab.example",
                "example",
                "localhost",
                "10.1.2.3",
                "10.1.0.0/16",
                "11.1.0.0/16",
                "::1",
                "::/64",
                "[::1]",
                "http://lab.example",
                "https://lab.example",
                "all://lab.example",
                "lab.example:9800",
                "lab.example:80",
                "x/y",
                "other,,localhost",
            )
        ),
    ],
    ids=lambda environment: ",".join(map("=".join, environment.items())),
)
def test_the_environment_is_read_as_httpx_reads_it(
    environment: dict[str, str], scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the same proxy or none for every form of exemption."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with httpx2.Client(verify=False) as client:
        url = httpx2.URL(scheme=scheme, host=host, port=9800)
        transport: Any = client._transport_for_url(url)
        proxy = getattr(transport._pool, "_proxy_url", None)
    theirs = None if proxy is None else (proxy.host.decode(), proxy.port or 80)
    found = proxy_of_environment(host, 9800, is_secure=scheme == "https")
    ours = found and make_proxy(found, trio.open_tcp_stream)
    assert (ours and (ours.host, ours.port)) == theirs


def test_the_environment_does_not_affect_a_given_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation is the same wherever it runs."""
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(ProxyUnusable, match="'socks5' proxies are not supported"):
        EngineDispatcher(handlers=Unit())
    EngineDispatcher(handlers=Unit(), open_stream=raises(OSError()))
    EngineDispatcher(handlers=Unit(), proxy=False)
