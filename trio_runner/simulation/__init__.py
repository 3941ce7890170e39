"""A simulated engine and an aggregator stand-in, to try a runner and to test an engine."""

from trio_runner.simulation._aggregator import (
    Connection,
    EngineRecord,
    Received,
    RecentRun,
    Registration,
    Run,
    Sample,
    Unit,
)
from trio_runner.simulation._engine import SimulatedEngine
from trio_runner.simulation._network import Flow, Network, Wire
from trio_runner.simulation._server import Aggregator, HttpRequest, OnMessage

__all__ = [
    "Aggregator",
    "Connection",
    "EngineRecord",
    "Flow",
    "HttpRequest",
    "Network",
    "OnMessage",
    "Received",
    "RecentRun",
    "Registration",
    "Run",
    "Sample",
    "SimulatedEngine",
    "Unit",
    "Wire",
]
