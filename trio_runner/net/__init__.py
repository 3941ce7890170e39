"""The network as the runner sees it: dial an aggregator, then both sides call over one link."""

from trio_runner.net._address import spelled_out
from trio_runner.net._dispatcher import (
    DEFAULT_PORT,
    DEFAULT_SECURE_PORT,
    EngineDispatcher,
    NetworkOptions,
)
from trio_runner.net._interfaces import Answered, Dialer, Session, StreamOpener
from trio_runner.net._proxy import ProxyUnusable
from trio_runner.net._tls import TlsFileUnusable

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_SECURE_PORT",
    "Answered",
    "Dialer",
    "EngineDispatcher",
    "NetworkOptions",
    "ProxyUnusable",
    "Session",
    "StreamOpener",
    "TlsFileUnusable",
    "spelled_out",
]
