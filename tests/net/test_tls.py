"""Real sockets: TLS with certificates of an authority that the test makes, plain TCP, IPv6."""

import os
import socket
import ssl
import threading
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.helpers.unit import Unit
from tests.net.certificates import forged
from trio_runner import (
    AggregatorUnreachable,
    DialError,
    EngineDispatcher,
    NotAnAggregator,
    Timing,
    TlsFileUnusable,
)
from trio_runner.net import Session
from trio_runner.net._address import Address
from trio_runner.net._tls import why_no_tls
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
    certificate: trustme.LeafCert | None = None,
    *,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
) -> AsyncGenerator[tuple[Aggregator, int], None]:
    """Serve the stand-in on a free port, with TLS if given a certificate; yield it and the port."""
    if certificate is not None:
        context = context or ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[int]) -> None:
            await aggregator.run(host=host, ssl_context=context, task_status=task_status)

        yield aggregator, await nursery.start(run)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def refusing(context: ssl.SSLContext) -> AsyncGenerator[int, None]:
    """Serve one connection, which the TLS context refuses; yield the port.

    The standard library serves it, since it tells the client why; Trio's streams do not.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection.dup() as raw:
                with suppress(OSError):
                    context.wrap_socket(connection, server_side=True)
                while raw.recv(4096):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse)
            yield listener.getsockname()[1]


async def dial(dispatcher: EngineDispatcher, *, task_status: trio.TaskStatus[Session]) -> None:
    """Dial once."""
    registration = Unit().create_register_engine_msg()
    await dispatcher.dial(registration, Timing(), task_status=task_status)


async def succeed(dispatcher: EngineDispatcher, aggregator: Aggregator) -> None:
    """Dial, check that the aggregator has the engine, and close cleanly."""
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


async def test_a_plain_dial_succeeds() -> None:
    """Without `secure` the connection is plain."""
    async with serving() as (aggregator, port):
        await succeed(EngineDispatcher(port=port, handlers=Unit()), aggregator)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_dial_with_a_private_authority_succeeds(
    host: str, authority: trustme.CA, ca_file: Path
) -> None:
    """The registration and the websocket are encrypted, for a name and for an address."""
    async with serving(authority.issue_cert("127.0.0.1", "localhost")) as (aggregator, port):
        dispatcher = EngineDispatcher(host, port, handlers=Unit(), secure=True, ca_file=ca_file)
        await succeed(dispatcher, aggregator)
        header = aggregator.requests[1].headers["host"]
        assert header == f"{host}:{port}"


async def test_a_dial_to_an_ipv6_address_succeeds(authority: trustme.CA, ca_file: Path) -> None:
    """An IPv6 address works without and with TLS."""
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
    """If the system does not trust a certificate, the error names the store and the CA file."""
    async with serving(authority.issue_cert("127.0.0.1")) as (aggregator, port):
        error = await failure(EngineDispatcher(port=port, handlers=Unit(), secure=True))
        assert type(error) is NotAnAggregator
        assert str(error).startswith(f"The certificate of https://127.0.0.1:{port} is not trusted:")
        assert str(error).endswith(" system's store or give its CA file (--ca-file FILE).")
        assert aggregator.requests == []


async def test_a_certificate_of_another_authority_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    """With a CA file, only its authorities are trusted."""
    async with serving(trustme.CA().issue_cert("127.0.0.1")) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "is not trusted" in str(error)


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    """For a good certificate of another host, the error names both hosts."""
    async with serving(authority.issue_cert("other.example")) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "127.0.0.1" in str(error).partition("is for another name:")[2]
        assert str(error).endswith("(-ahn), or have a certificate issued for this name.")


async def test_tls_to_a_plain_port_is_named_as_the_reason(ca_file: Path) -> None:
    """A secure dial to a plain port says so."""
    async with serving() as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "broke off the TLS handshake. Perhaps it does not speak TLS at this port" in str(
            error
        )
        assert "no --secure" in str(error)


async def test_an_answer_in_plain_http_to_a_tls_dial_is_recognized(ca_file: Path) -> None:
    """The aggregator's own server does so; the error recognizes it."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\nInvalid HTTP request received.")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        nursery.cancel_scope.cancel()
    assert str(error) == (
        f"What answers at https://127.0.0.1:{port} does not speak TLS (WRONG_VERSION_NUMBER). Check"
        " the port, or dial it without a secure connection (no --secure)."
    )


async def test_a_plain_dial_to_a_tls_port_says_to_use_secure(authority: trustme.CA) -> None:
    """A plain dial to a TLS port says that it may want a secure connection."""
    async with serving(authority.issue_cert("127.0.0.1")) as (_, port):
        error = await failure(EngineDispatcher(port=port, handlers=Unit()))
        assert type(error) in (NotAnAggregator, AggregatorUnreachable)
        assert "secure connection" in str(error)


async def test_a_closed_port_refuses() -> None:
    """A host that is up but does not listen at the port refuses at once."""
    async with serving() as (_, port):
        pass
    error = await failure(EngineDispatcher(port=port, handlers=Unit()))
    assert type(error) is AggregatorUnreachable
    assert error.refused
    error = await failure(EngineDispatcher("localhost", port, handlers=Unit()))
    assert error.refused


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_the_proxy_of_the_environment_is_used(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy at a port that refuses stops the dial, but not with NO_PROXY or `proxy=False`."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with serving() as (aggregator, port):
        error = await failure(EngineDispatcher(port=port, handlers=Unit()))
        assert str(error).startswith("Nothing answers at the proxy http://127.0.0.1:9: connection")
        await succeed(EngineDispatcher(port=port, handlers=Unit(), proxy=False), aggregator)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with serving() as (aggregator, port):
        await succeed(EngineDispatcher(port=port, handlers=Unit()), aggregator)


@pytest.fixture
def files(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> dict[str, Path]:
    """Return files, some of use and some not."""
    mine = authority.issue_cert("engine.example")
    paths = {
        name: tmp_path / f"{name}.pem" for name in ("cert", "key", "both", "other", "words", "pipe")
    }
    mine.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    mine.private_key_pem.write_to_path(str(paths["key"]))
    mine.private_key_and_cert_chain_pem.write_to_path(str(paths["both"]))
    authority.issue_cert("other.example").private_key_pem.write_to_path(str(paths["other"]))
    paths["words"].write_text("no certificate")
    os.mkfifo(paths["pipe"])
    return paths | {"ca": ca_file, "none": tmp_path / "none.pem", "folder": tmp_path}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ca_file": "none"}, "ca_file: cannot read .*none.pem: No such file"),
        ({"ca_file": "words"}, "ca_file: there are no PEM certificates in .*words.pem"),
        ({"ca_file": "pipe"}, "ca_file: .*pipe.pem is not a regular file"),
        ({"ca_file": "folder"}, "ca_file: .* is not a regular file"),
        ({"ca_file": ""}, "ca_file: a file needs a name"),
        ({"client_cert": "pipe"}, "client_cert: .*pipe.pem is not a regular file"),
        ({"client_cert": "words"}, "client_cert: there is no PEM certificate with its key in"),
        ({"client_cert": "cert"}, "client_cert: there is no PEM certificate with its key in"),
        ({"client_cert": "cert", "client_key": "other"}, "client_key: .* does not belong to the"),
        ({"client_cert": "cert", "client_key": ""}, "client_key: a file needs a name"),
        ({"client_key": "key"}, "client_key: it needs a client certificate"),
    ],
)
def test_a_useless_file_is_refused_at_once(
    given: dict[str, str], told: str, files: dict[str, Path]
) -> None:
    """It is refused when the dispatcher is made, not at the first dial; no pipe is waited for."""
    paths: Any = {name: files.get(file, file) for name, file in given.items()}
    with pytest.raises(TlsFileUnusable, match=told):
        EngineDispatcher(handlers=Unit(), secure=True, **paths)


def test_a_key_with_a_passphrase_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """Nobody is asked for the passphrase at the terminal."""
    key = load_pem_private_key(files["key"].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    )
    with pytest.raises(TlsFileUnusable, match=r"client_key: the key in .* has a passphrase"):
        EngineDispatcher(handlers=Unit(), secure=True, client_cert=files["cert"], client_key=locked)


@pytest.mark.parametrize("argument", ["ca_file", "client_cert", "client_key"])
async def test_a_tls_file_without_tls_is_a_mistake(argument: str, ca_file: Path) -> None:
    """A CA file for a plain connection would give false comfort."""
    given: Any = {argument: ca_file}
    with pytest.raises(ValueError, match=f"{argument}: it needs a secure connection"):
        EngineDispatcher(handlers=Unit(), **given)


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_client_certificate_is_shown_where_it_is_wanted(
    maximum: ssl.TLSVersion, authority: trustme.CA, ca_file: Path, files: dict[str, Path]
) -> None:
    """With it the dial succeeds; without it, or with a stranger's, the error says what to give."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = maximum
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    stranger = ca_file.parent / "stranger.pem"
    trustme.CA().issue_cert("engine.example").private_key_and_cert_chain_pem.write_to_path(
        str(stranger)
    )
    certificates: list[Any] = [
        {"client_cert": files["cert"], "client_key": files["key"]},
        {"client_cert": files["both"]},
    ]
    for given in certificates:
        async with serving(authority.issue_cert("127.0.0.1"), context=context) as (peer, port):
            dispatcher = EngineDispatcher(
                port=port, handlers=Unit(), secure=True, ca_file=ca_file, **given
            )
            await succeed(dispatcher, peer)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with refusing(context) as port:
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert type(error) is NotAnAggregator
        assert "want" in str(error)
        assert "a client certificate" in str(error)
        assert "--client-cert FILE --client-key FILE" in str(error)
    async with refusing(context) as port:
        dispatcher = EngineDispatcher(
            port=port, handlers=Unit(), secure=True, ca_file=ca_file, client_cert=stranger
        )
        error = await failure(dispatcher)
        assert "refused this engine because of its client certificate" in str(error)


@pytest.mark.parametrize("in_system_store", [False, True])
async def test_the_certificate_of_an_inspecting_proxy_is_accepted(
    in_system_store: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks the Authority Key Identifier, so Python 3.13's strict check would refuse it."""
    ca_file, certificate = forged(tmp_path)
    if in_system_store:
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with serving(context=context) as (aggregator, port):
        given: Any = {} if in_system_store else {"ca_file": ca_file}
        await succeed(
            EngineDispatcher(port=port, handlers=Unit(), secure=True, **given), aggregator
        )


async def test_authorities_are_not_read_in_trios_thread(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A disk that is slow or hangs holds up only this dial."""
    threads = []

    class Noting(ssl.SSLContext):
        def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
            threads.append(threading.get_ident())
            return super().wrap_bio(*arguments, **options)

    context = Noting(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    async with serving(authority.issue_cert("127.0.0.1")) as (_, port):
        address = Address("127.0.0.1", port, context, trio.open_tcp_stream)
        await trio.aclose_forcefully(await address.open())
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_tls_within_tls_passes_a_secure_proxy(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's store verifies the proxy's certificate, the file the aggregator's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    heads = []

    async def tunnel(stream: "trio.SSLStream[trio.SocketStream]") -> None:
        try:
            heads.append(bytes(await stream.receive_some()).partition(b"\r\n")[0])
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            other = await trio.open_tcp_stream("127.0.0.1", port)
            async with other, trio.open_nursery() as both:
                both.start_soon(carry, stream, other)
                await carry(other, stream)
                both.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the dial has ended

    async def carry(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        async for data in source:
            await sink.send_all(bytes(data))

    async with trio.open_nursery() as nursery, serving(authority.issue_cert("127.0.0.1")) as it:
        aggregator, port = it
        serve = partial(trio.serve_ssl_over_tcp, tunnel, 0, context, host="127.0.0.1")
        listeners: Any = await nursery.start(serve)
        proxy_port = listeners[0].transport_listener.socket.getsockname()[1]
        proxy = f"https://localhost:{proxy_port}"
        dispatcher = EngineDispatcher(
            port=port, handlers=Unit(), secure=True, ca_file=ca_file, proxy=proxy
        )
        error = await failure(dispatcher)
        assert f"The certificate of the proxy {proxy} is not trusted" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        await succeed(dispatcher, aggregator)
        nursery.cancel_scope.cancel()
    assert heads == [f"CONNECT 127.0.0.1:{port} HTTP/1.1".encode()] * 2


async def test_an_expired_certificate_is_named_as_the_reason(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The error says where it must be renewed."""
    old = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = authority.issue_cert("127.0.0.1", not_before=old, not_after=old)
    async with serving(certificate) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert str(error) == (
            f"The certificate of https://127.0.0.1:{port} is out of date: certificate has expired."
            " Have it renewed there. If other computers accept it, correct this computer's clock."
        )


async def test_a_certificate_that_is_not_valid_yet_is_named_as_the_reason(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The cause is mostly the clock of the engine's computer."""
    start = datetime.now(UTC) + timedelta(days=1)
    certificate = authority.issue_cert(
        "127.0.0.1", not_before=start, not_after=start + timedelta(days=1)
    )
    async with serving(certificate) as (_, port):
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert "is not valid yet" in str(error)
        assert str(error).endswith("Is this computer's clock right?")


async def test_an_outdated_version_of_tls_is_named_as_the_reason(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The server speaks TLS 1.1 at most."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with refusing(context) as port:
        dispatcher = EngineDispatcher(port=port, handlers=Unit(), secure=True, ca_file=ca_file)
        error = await failure(dispatcher)
        assert "speaks only versions of TLS that are no longer safe" in str(error)
        assert str(error).endswith("Let it speak TLS 1.2 or newer.")


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([10, 0x800B0101, 0x800B0101 - 2**32, -67818], "is out of date: as it is said. Have it"),
        ([9, -67819], "is not valid yet: as it is said. Is this computer's clock right?"),
        ([62, 64, 0x800B010F, -67602], "is for another name: as it is said. Use a name"),
        ([18, 19, 20, 21, 0x800B0109, 0x800B010A, -67843], "is not trusted: as it is said. If"),
        ([23, 0x800B010C], "is not accepted: as it is said. Have it replaced there."),
    ],
)
def test_certificate_errors_of_every_system_are_understood(codes: list[int], told: str) -> None:
    """OpenSSL, Windows and macOS each number the reasons in their own way."""
    for code in codes:
        error = ssl.SSLCertVerificationError("x")
        error.verify_code, error.verify_message = code, "as it is said."
        assert told in str(why_no_tls("https://a.example:443", error))
