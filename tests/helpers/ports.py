"""Ports that a test can open, close and open again."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a free port below the range that the system uses for outgoing connections.

    An engine that dials a port in that range while nobody listens can end up connected to itself,
    and then holds the port. Or another connection may take the port before it is opened again.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port among 100")
