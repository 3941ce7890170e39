"""Where an aggregator is, and how a byte stream to it is opened."""

import ssl
from importlib.metadata import version

import trio
from attrs import frozen

from trio_runner.net._interfaces import StreamOpener

USER_AGENT = f"trio-runner/{version('trio-runner')}"


@frozen
class Address:
    """Host, port and, if the connection is secure, the TLS context."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    open_stream: StreamOpener

    @property
    def authority(self) -> str:
        """Host and port as a URL and a Host header have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.ssl_context else 'http'}://{self.authority}"

    async def open(self) -> trio.abc.Stream:
        """Open a byte stream, encrypted where the connection is secure.

        Raises OSError if the host refuses or is unknown, trio.BrokenResourceError if TLS fails. If
        cancelled, the stream is closed.
        """
        stream = await self.open_stream(self.host, self.port)
        if self.ssl_context is None:
            return stream
        secure = trio.SSLStream(
            stream, self.ssl_context, server_hostname=self.host, https_compatible=True
        )
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure
