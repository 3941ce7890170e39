"""A tunnel through an HTTP proxy, by CONNECT, for registration and websocket alike.

Unencrypted connections go through a tunnel as well: a websocket needs one, and the websocket
library of Open Pectus's engine asks for one too.
"""

import base64
import socket
import ssl
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import trio
from attrs import field, frozen

from trio_runner._errors import AggregatorUnreachable, DialError, NotAnAggregator
from trio_runner._printable import printable
from trio_runner.net._address import USER_AGENT, authority, encrypt, is_refusal
from trio_runner.net._http import ClosedInReply, NotHttp, Reply, exchange
from trio_runner.net._interfaces import StreamOpener
from trio_runner.net._replies import challenges, retry_after_s
from trio_runner.net._tls import make_context, why_no_tls

PORTS = {"http": 80, "https": 443}


class ProxyUnusable(ValueError):
    """A proxy's URL cannot be used; the message says why and does not show the password."""


@frozen
class Proxy:
    """Opens streams to anywhere through an HTTP proxy; `open` is a `StreamOpener`."""

    host: str
    port: int
    _ssl_context: ssl.SSLContext | None
    _user: str
    _password: str = field(repr=False)
    _open_stream: StreamOpener

    def __str__(self) -> str:
        return f"{'https' if self._ssl_context else 'http'}://{authority(self.host, self.port)}"

    async def open(self, host: str, port: int) -> trio.abc.Stream:
        """Open a stream to a host and port through the proxy.

        Raises DialError, which names the proxy. If cancelled, the stream is closed.
        """
        stream = await self._reach()
        try:
            await self._connect(stream, authority(host, port))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _reach(self) -> trio.abc.Stream:
        try:
            stream = await self._open_stream(self.host, self.port)
        except (socket.gaierror, UnicodeError) as error:
            raise AggregatorUnreachable(
                f"The host of the proxy {self} is unknown. Is its name right?"
            ) from error
        except OSError as error:
            raise self._unreachable(error) from error
        if self._ssl_context is None:
            return stream
        try:
            return await encrypt(stream, self._ssl_context, self.host)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise why_no_tls(f"the proxy {self}", error.__cause__) from error
            raise self._broke_off() from error

    def _unreachable(self, error: OSError) -> AggregatorUnreachable:
        if is_refusal(error):
            return AggregatorUnreachable(
                f"Nothing answers at the proxy {self}: connection refused. Is its address right,"
                " and is it running? Use --no-proxy to do without it.",
                refused=True,
            )
        return AggregatorUnreachable(
            f"The connection to the proxy {self} failed: {printable(repr(error))}"
        )

    async def _connect(self, stream: trio.abc.Stream, target: str) -> None:
        target = target.encode("idna").decode()
        headers = [("Host", target), ("User-Agent", USER_AGENT)]
        if self._user or self._password:
            login = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            headers.append(("Proxy-Authorization", f"Basic {login}"))
        try:
            reply = await exchange(
                stream, "CONNECT", "http://proxy", headers, extensions={"target": target.encode()}
            )
        except NotHttp:
            raise NotAnAggregator(
                f"What answers at the proxy {self} does not speak HTTP. Check its host and port."
            ) from None  # the parser's error quotes the peer, which may echo our password
        except (ClosedInReply, trio.BrokenResourceError) as error:
            raise self._broke_off() from error
        if not 200 <= reply.status < 300:
            raise self._why_no_tunnel(target, reply)

    def _broke_off(self) -> AggregatorUnreachable:
        return AggregatorUnreachable(
            f"The proxy {self} closed the connection before it opened a way through. Is it an HTTP"
            " proxy, and may this computer use it?"
        )

    def _why_no_tunnel(self, target: str, reply: Reply) -> DialError:
        said = f"HTTP status {reply.status}"
        if reply.status in (401, 407):  # tinyproxy answers a wrong login with 401
            return NotAnAggregator(self._why_no_login(reply, said))
        if reply.status in (403, 405):
            return NotAnAggregator(
                f"The proxy {self} does not allow a connection to {target} ({said}). Ask its"
                " administrator to allow CONNECT to that host and port. If the aggregator can be"
                " reached without the proxy, use --no-proxy or NO_PROXY."
            )
        wait_s = retry_after_s(reply) if reply.status in (429, 503) else 0
        wait = f" It asks clients to wait {wait_s:g} s, and this engine does." if wait_s else ""
        return AggregatorUnreachable(
            f"The proxy {self} could not connect to {target} ({said}). Is the aggregator running"
            f" there, and does the proxy know it by that name?{wait}",
            retry_after_s=wait_s,
        )

    def _why_no_login(self, reply: Reply, said: str) -> str:
        offered = challenges(reply, b"proxy-authenticate")
        if offered and "basic" not in {scheme.lower() for scheme in offered}:
            return (
                f"The proxy {self} wants a login by {' or '.join(offered)} ({said}), and this"
                " engine can log in only by Basic. Ask its administrator to allow Basic or no"
                " login, or run a local proxy in between that can log in."
            )
        if self._user or self._password:
            return (
                f"The proxy {self} refused the login of user {printable(self._user)} ({said})."
                " Check the user and the password in its URL; write special characters as %XX."
            )
        return (
            f"The proxy {self} wants a login ({said}). Give it in the proxy's URL:"
            " http://USER:PASSWORD@HOST:PORT."
        )


def make_proxy(url: str, open_stream: StreamOpener) -> Proxy:
    """Return the proxy of a URL like `http://user:password@host:3128`. Raises ProxyUnusable."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ProxyUnusable("it is not a URL: give http://HOST:PORT") from None
    if parts.scheme not in PORTS:
        raise ProxyUnusable(
            f"{printable(parts.scheme, 30)!r} proxies are not supported: give an HTTP proxy as"
            " http://HOST:PORT, or --no-proxy"
        )
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ProxyUnusable("it is not the URL of a proxy: give http://HOST:PORT")
    return Proxy(
        parts.hostname,
        port or PORTS[parts.scheme],
        make_context() if parts.scheme == "https" else None,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        open_stream,
    )


def proxy_of_environment(host: str, port: int, *, is_secure: bool) -> str | None:
    """Return the URL of the proxy for an address as httpx would choose it, None for no proxy.

    This is HTTP_PROXY or HTTPS_PROXY, else ALL_PROXY, unless NO_PROXY exempts the host. If none of
    these is set, it is the setting of Windows or macOS, with its exceptions.
    """
    proxies = getproxies()
    url = proxies.get("https" if is_secure else "http") or proxies.get("all")
    if not url or _is_exempt(host, port, proxies.get("no", ""), is_secure=is_secure):
        return None
    if not getproxies_environment() and proxy_bypass(host):
        return None
    return url


def _is_exempt(host: str, port: int, no_proxy: str, *, is_secure: bool) -> bool:
    host = host.lower()
    for entry in filter(None, (entry.strip().lower() for entry in no_proxy.split(","))):
        scheme, _, name = entry.rpartition("://")
        if scheme not in ("", "all", "https" if is_secure else "http"):
            continue
        if entry == "*" or _names(name, host, port, with_domain=not scheme):
            return True
    return False


def _names(entry: str, host: str, port: int, *, with_domain: bool) -> bool:
    """Tell whether an entry of NO_PROXY names a host or a domain that contains it."""
    try:
        return ip_address(host) in ip_network(entry.strip("[]").replace("]/", "/"), strict=False)
    except ValueError:
        pass
    name, colon, own_port = entry.rpartition(":")
    if colon and own_port.isdigit():
        if int(own_port) != port:
            return False
        entry = name
    if entry.startswith((".", "*.")):
        return host.endswith(entry.lstrip("*"))
    entry = entry.strip("[]")
    with_domain = with_domain and entry != "localhost"
    return host == entry or (with_domain and host.endswith(f".{entry}"))
