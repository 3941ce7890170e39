"""A simulated engine, aggregator, network and disk, to try things out and to test with.

`SimulatedEngine` is a filtration skid. `Aggregator` speaks the protocol as the real one does.
Between them, `Network` carries bytes as TCP does and breaks when you want it to. `SimulatedDisk`
is the disk of a `DurableOutbox`. `simulate` runs all of it from one seed, with faults and an
oracle; `survive` does the same with your own engine.
"""

from trio_runner.simulation.skid._engine import SimulatedEngine
from trio_runner.simulation.stand_ins._disk import SimulatedDisk
from trio_runner.simulation.stand_ins._http import HttpRequest
from trio_runner.simulation.stand_ins._network import Flow, Network, Wire
from trio_runner.simulation.stand_ins._records import (
    Connection,
    EngineRecord,
    Received,
    RecentRun,
    Registration,
    Run,
    Sample,
    Unit,
)
from trio_runner.simulation.stand_ins._server import Aggregator, OnMessage
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._guest import Engine
from trio_runner.simulation.trials._simulate import DURATION_S, Report, simulate
from trio_runner.simulation.trials._survive import survive

__all__ = [
    "DURATION_S",
    "FAULTS",
    "Aggregator",
    "Connection",
    "Engine",
    "EngineRecord",
    "Flow",
    "HttpRequest",
    "Network",
    "OnMessage",
    "Received",
    "RecentRun",
    "Registration",
    "Report",
    "Run",
    "Sample",
    "SimulatedDisk",
    "SimulatedEngine",
    "Unit",
    "Wire",
    "simulate",
    "survive",
]
