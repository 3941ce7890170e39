"""Where an aggregator is, and how to open a byte stream to it."""

import ssl
from importlib.metadata import version
from urllib.parse import urlsplit

import trio
from attrs import frozen

from trio_runner._groups import leaves
from trio_runner.net._interfaces import StreamOpener

USER_AGENT = f"trio-runner/{version('trio-runner')}"


@frozen
class Address:
    """The host, port and path of an aggregator and, for a secure connection, the TLS context."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    open_stream: StreamOpener
    path: str = ""
    """The path under which a proxy in front of the aggregator serves it, such as `/pectus`."""
    through: str = ""
    """The proxy that `open_stream` goes through, "" if there is none."""

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in a Host header."""
        return authority(self.host, self.port)

    def __str__(self) -> str:
        return f"{'https' if self.ssl_context else 'http'}://{self.authority}{self.path}"

    @property
    def way(self) -> str:
        """The address and the proxy on the way to it, for the log and for connection errors."""
        return f"{self} through the proxy {self.through}" if self.through else str(self)

    async def open(self) -> trio.abc.Stream:
        """Open a byte stream, encrypted if the connection is secure.

        Raises OSError if the host refuses or is unknown, trio.BrokenResourceError if TLS fails,
        and DialError if a proxy fails. If cancelled, the stream is closed.
        """
        stream = await self.open_stream(self.host, self.port)
        if self.ssl_context is None:
            return stream
        return await encrypt(stream, self.ssl_context, self.host)


def refuse_address(host: object, port: object) -> None:
    """Check that a host is a host name and a port is a number.

    Raises TypeError for types other than str and int. Raises ValueError for a URL and for
    HOST:PORT; its message gives the right spelling.
    """
    if not isinstance(host, str) or not isinstance(port, int):
        raise TypeError(f"the host must be a str and the port an int, not {host!r}, {port!r}")
    parts = spelled_out(host)
    if parts is None:
        return
    name, number, path, is_secure = parts
    said = repr(name) + (f", {number}" if number is not None else "")
    said += (f", path={path!r}" if path else "") + (", secure=True" if is_secure else "")
    raise ValueError(f"{host!r} is not a host name: give EngineDispatcher({said}, ...)")


def spelled_out(text: str) -> tuple[str, int | None, str, bool] | None:
    """Split a URL or HOST:PORT into host, port, path and whether it is secure.

    Return None if the text is neither.
    """
    scheme, colons, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # HOST:TEXT
        return None
    is_address = rest.count(":") > 1 and not rest.startswith("[")  # bare IPv6, so without a port
    if not host or is_address or not (colons or port is not None):
        return None
    return host, port, parts.path.rstrip("/"), scheme in ("https", "wss")


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def encrypt(
    stream: trio.abc.Stream, context: ssl.SSLContext, host: str
) -> "trio.SSLStream[trio.abc.Stream]":
    """Encrypt a stream and verify the server.

    Raises trio.BrokenResourceError if the handshake fails. If this fails or is cancelled, the
    stream is closed.
    """

    def wrap() -> "trio.SSLStream[trio.abc.Stream]":
        return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)

    try:
        # This reads the system's authorities from the disk, which takes 20 ms if all is well. So
        # keep it off Trio's thread.
        secure = await trio.to_thread.run_sync(wrap, abandon_on_cancel=True)
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


def is_refusal(failure: BaseException) -> bool:
    """Tell whether the host refused at every address of its name (Trio groups the errors)."""
    causes = list(leaves(failure.__cause__)) if failure.__cause__ else [failure]
    return all(isinstance(cause, ConnectionRefusedError) for cause in causes)
