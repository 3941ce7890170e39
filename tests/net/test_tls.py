"""Real sockets: TLS with certificates of an authority made for the test, plain TCP, IPv6."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from tests.helpers.unit import Unit
from trio_runner import AggregatorUnreachable, DialError, EngineDispatcher, NotAnAggregator, Timing
from trio_runner.net import Session
from trio_runner.simulation import Aggregator


@pytest.fixture
def authority() -> trustme.CA:
    """Return an authority that no trust store knows."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """Return the file with the authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@asynccontextmanager
async def serving(
    certificate: trustme.LeafCert | None = None, *, host: str = "127.0.0.1"
) -> AsyncGenerator[tuple[Aggregator, int], None]:
    """Serve the stand-in on a free port, with TLS given a certificate; yield it and the port."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[int]) -> None:
            await aggregator.run(host=host, ssl_context=context, task_status=task_status)

        yield aggregator, await nursery.start(run)
        nursery.cancel_scope.cancel()


async def dial(dispatcher: EngineDispatcher, *, task_status: trio.TaskStatus[Session]) -> None:
    """Dial once."""
    registration = Unit().create_register_engine_msg()
    await dispatcher.dial(registration, Timing(), task_status=task_status)


async def succeed(dispatcher: EngineDispatcher, aggregator: Aggregator) -> None:
    """Dial, see the engine at the aggregator, close in order."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            session = await nursery.start(dial, dispatcher)
            await aggregator.wait_until(lambda: list(aggregator.engines) == [session.engine_id])
            await session.aclose()
        assert [request.path for request in aggregator.requests] == ["/engine-rest", "/engine-rpc"]


async def failure(dispatcher: EngineDispatcher) -> DialError:
    """Dial, expect it to fail, and return the error."""
    with trio.fail_after(10), pytest.raises(DialError) as caught:
        await dial(dispatcher, task_status=trio.TASK_STATUS_IGNORED)
    return caught.value


async def test_plain_tcp() -> None:
    """Without `secure` the connection is plain."""
    async with serving() as (aggregator, port):
        await succeed(EngineDispatcher(port=port, handlers=Unit()), aggregator)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_with_an_authority_of_ones_own(
    host: str, authority: trustme.CA, ca_file: Path
) -> None:
    """Registration and websocket are encrypted, for a name and for an address."""
    async with serving(authority.issue_cert("127.0.0.1", "localhost")) as (aggregator, port):
        dispatcher = EngineDispatcher(host, port, handlers=Unit(), secure=True, ca_file=ca_file)
        await succeed(dispatcher, aggregator)
        header = aggregator.requests[1].headers["host"]
        assert header == f"{host}:{port}"


async def test_ipv6(authority: trustme.CA, ca_file: Path) -> None:
    """An IPv6 address works, plain and with TLS."""
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    for listener in listeners:
        await listener.aclose()
    async with serving(host="::1") as (aggregator, port):
        await succeed(EngineDispatcher("::1", port, handlers=Unit()), aggregator)
        assert aggregator.requests[0].headers["host"] == f"[::1]:{port}"
    async with serving(authority.issue_cert("::1"), host="::1") as (aggregator, port):
        dispatcher = EngineDispatcher("::1", port, handlers=Unit(), secure=True, ca_file=ca_file)
        await succeed(dispatcher, aggregator)


async def test_an_untrusted_certificate_is_refused(authority: trustme.CA) -> None:
    """A certificate that the system does not trust: the text tells of the CA file."""
    async with serving(authority.issue_cert("127.0.0.1")) as (aggregator, port):
        error = await failure(EngineDispatcher(port=port, handlers=Unit(), secure=True))
        assert type(error) is NotAnAggregator
        assert str(error).startswith(f"The certificate of https://127.0.0.1:{port} is not trusted:")
        assert str(error).endswith(" give its CA file.")
        assert aggregator.requests == []


async def test_another_authority_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    """With a CA file, only its authorities are trusted."""
    async with serving(trustme.CA().issue_cert("127.0.0.1")) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "is not trusted" in str(error)


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A good certificate of another host: the text names both."""
    async with serving(authority.issue_cert("other.example")) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "127.0.0.1" in str(error).partition("is not trusted:")[2]


async def test_tls_to_a_plain_port(ca_file: Path) -> None:
    """A secure dial to a plain port says so."""
    async with serving() as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "does not speak TLS" in str(error)
        assert "dial it without a secure connection" in str(error)


async def test_plain_to_a_tls_port(authority: trustme.CA) -> None:
    """A plain dial to a TLS port says that it may want a secure connection."""
    async with serving(authority.issue_cert("127.0.0.1")) as (_, port):
        error = await failure(EngineDispatcher(port=port, handlers=Unit()))
        assert type(error) in (NotAnAggregator, AggregatorUnreachable)
        assert "secure connection" in str(error)


async def test_a_closed_port_refuses() -> None:
    """A host that is up with nothing at the port refuses at once."""
    async with serving() as (_, port):
        pass
    error = await failure(EngineDispatcher(port=port, handlers=Unit()))
    assert type(error) is AggregatorUnreachable
    assert error.refused
    error = await failure(EngineDispatcher("localhost", port, handlers=Unit()))
    assert error.refused


async def test_proxy_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and its kind, set to a port that refuses, stop neither of the connections."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    async with serving() as (aggregator, port):
        await succeed(EngineDispatcher(port=port, handlers=Unit()), aggregator)


async def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing or wrong CA file is told when the dispatcher is made, not at the first dial."""
    with pytest.raises(FileNotFoundError):
        EngineDispatcher(handlers=Unit(), secure=True, ca_file=tmp_path / "none.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        EngineDispatcher(handlers=Unit(), secure=True, ca_file=empty)


async def test_a_ca_file_without_tls_is_a_mistake(ca_file: Path) -> None:
    """A CA file for a plain connection would be a false comfort."""
    with pytest.raises(ValueError, match="secure connection only"):
        EngineDispatcher(handlers=Unit(), ca_file=ca_file)
