"""Ports that a test may open, close and open again."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a free port below those that the system gives to connections that go out.

    An engine that dials a port up there while nobody listens can end up connected to itself, and
    then holds the port; or another connection has taken it by the time it is opened again.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port among 100")
