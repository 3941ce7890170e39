"""Where an aggregator is, and how a byte stream to it is opened."""

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
    """Host, port and path and, if the connection is secure, the TLS context."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    open_stream: StreamOpener
    path: str = ""
    """What a proxy before the aggregator has it under: `/pectus`, say."""
    through: str = ""
    """The proxy through which `open_stream` goes, "" for none."""

    @property
    def authority(self) -> str:
        """Host and port as a URL and a Host header have them."""
        return authority(self.host, self.port)

    def __str__(self) -> str:
        return f"{'https' if self.ssl_context else 'http'}://{self.authority}{self.path}"

    @property
    def way(self) -> str:
        """The address and how it is reached, for a log and for errors of the way."""
        return f"{self} through the proxy {self.through}" if self.through else str(self)

    async def open(self) -> trio.abc.Stream:
        """Open a byte stream, encrypted where the connection is secure.

        Raises OSError if the host refuses or is unknown, trio.BrokenResourceError if TLS fails,
        DialError if a proxy does. If cancelled, the stream is closed.
        """
        stream = await self.open_stream(self.host, self.port)
        if self.ssl_context is None:
            return stream
        return await encrypt(stream, self.ssl_context, self.host)


def refuse_address(host: object, port: object) -> None:
    """Refuse what is no host name and no port, with the right spelling where it can be told.

    Raises TypeError on other types than str and int, ValueError on a URL and on HOST:PORT.
    """
    if not isinstance(host, str) or not isinstance(port, int):
        raise TypeError(
            f"the aggregator is at a host (str) and a port (int), not {host!r}, {port!r}"
        )
    parts = spelled_out(host)
    if parts is None:
        return
    name, number, path, is_secure = parts
    said = repr(name) + (f", {number}" if number is not None else "")
    said += (f", path={path!r}" if path else "") + (", secure=True" if is_secure else "")
    raise ValueError(f"{host!r} is no host name: give EngineDispatcher({said}, ...)")


def spelled_out(text: str) -> tuple[str, int | None, str, bool] | None:
    """Return host, port, path, and whether it is https, of a URL or HOST:PORT, None of another."""
    scheme, colons, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # HOST:TEXT
        return None
    is_address = rest.count(":") > 1 and not rest.startswith("[")  # IPv6, which has no port then
    if not host or is_address or not (colons or port is not None):
        return None
    return host, port, parts.path.rstrip("/"), scheme in ("https", "wss")


def authority(host: str, port: int) -> str:
    """Return host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def encrypt(
    stream: trio.abc.Stream, context: ssl.SSLContext, host: str
) -> "trio.SSLStream[trio.abc.Stream]":
    """Return the stream encrypted, with the server verified.

    Raises trio.BrokenResourceError. If it fails or is cancelled, the stream is closed.
    """

    def wrap() -> "trio.SSLStream[trio.abc.Stream]":
        return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)

    try:
        # Off Trio's thread, since it reads the system's authorities from the disk: 20 ms if all is
        # well.
        secure = await trio.to_thread.run_sync(wrap, abandon_on_cancel=True)
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


def is_refusal(failure: BaseException) -> bool:
    """Tell whether the host refused, at every address that its name has (Trio groups those)."""
    causes = list(leaves(failure.__cause__)) if failure.__cause__ else [failure]
    return all(isinstance(cause, ConnectionRefusedError) for cause in causes)
