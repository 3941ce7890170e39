"""The command-line options that say how the aggregator is reached."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from ipaddress import IPv6Address
from urllib.parse import quote

from trio_runner import (
    EngineDispatcher,
    NetworkOptions,
    PlainEngine,
    ProxyUnusable,
    TlsFileUnusable,
)
from trio_runner.net import spelled_out

WHERE = "HOST[/PATH]"
"""The form of an address. The path is where a proxy in front of the aggregator serves it."""


def add_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the options for proxies and TLS."""
    add = parser.add_argument
    add(
        "--ca-file",
        metavar="FILE",
        help="with --secure: trust the authorities in this PEM file instead of the system's",
    )
    add(
        "--client-cert",
        metavar="FILE",
        help="with --secure: the engine's own certificate (PEM), for a server that asks for one",
    )
    add(
        "--client-key",
        metavar="FILE",
        help="the key of that certificate (PEM, without a passphrase), if it is in another file",
    )
    proxy = parser.add_mutually_exclusive_group()
    proxy.add_argument(
        "--proxy",
        metavar="URL",
        default=True,
        help="reach the aggregator through this HTTP proxy, http://USER:PASSWORD@HOST:PORT"
        " (default: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in the environment)",
    )
    proxy.add_argument(
        "--no-proxy",
        dest="proxy",
        action="store_false",
        help="use no proxy, whatever the environment says",
    )


def split_where(text: str) -> tuple[str, str]:
    """Return host and path of an address. Raises ArgumentTypeError."""
    host, slash, path = text.partition("/")
    spelled = spelled_out(text)
    if spelled is not None:
        raise ArgumentTypeError(f"{text!r} is not a host name: give {_as_options(*spelled)}")
    if not host or (":" in host and not _is_ipv6(host)) or any(map(str.isspace, text)):
        raise ArgumentTypeError(f"{text!r} is not a host name: give a name or an IP address alone")
    return host, quote(slash + path, safe="/%:@!$&'()*+,;=~").rstrip("/")


def _as_options(host: str, port: int | None, path: str, is_secure: bool) -> str:
    return (
        f"-ahn {host}{path}"
        + (f" -ap {port}" if port is not None else "")
        + (" -s" if is_secure else "")
    )


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def network_options(given: Namespace, host: str, port: int | None, path: str) -> NetworkOptions:
    """Return how the aggregator at an address is reached.

    Raises ArgumentTypeError, before anything runs, for options that cannot work.
    """
    options = NetworkOptions(
        path=path,
        secure=bool(given.secure),
        ca_file=given.ca_file,
        client_cert=given.client_cert,
        client_key=given.client_key,
        proxy=given.proxy,
    )
    try:
        EngineDispatcher(host, port, handlers=PlainEngine(), **options)
    except TlsFileUnusable as error:
        argument = f"--{error.argument.replace('_', '-')}"
        why = error.why.replace("a secure connection", "--secure")
        raise ArgumentTypeError(f"{source(given, error.argument, argument)}: {why}") from None
    except ProxyUnusable as error:
        of_given = source(given, "proxy", "--proxy")
        whose = "the proxy in the environment" if given.proxy is True else of_given
        raise ArgumentTypeError(f"{whose}: {error}") from None
    return options


def source(given: Namespace, option: str, argument: str) -> str:
    """Return where an option's value comes from, for an error: a file's line or the argument."""
    place: str | None = getattr(given, "places", {}).get(option)
    return place or f"argument {argument}"
