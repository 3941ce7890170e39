"""The network as the runner sees it: dial an aggregator, then call each other over one link."""

from trio_runner.net._dispatcher import DEFAULT_PORT, DEFAULT_SECURE_PORT, EngineDispatcher
from trio_runner.net._interfaces import Answered, Dialer, Session, StreamOpener

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_SECURE_PORT",
    "Answered",
    "Dialer",
    "EngineDispatcher",
    "Session",
    "StreamOpener",
]
