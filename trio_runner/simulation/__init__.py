"""A simulated engine, an aggregator stand-in, a network and a disk: to try and to test with.

`SimulatedEngine` is a filtration skid, `Aggregator` speaks the protocol as the real one does.
Between them `Network` carries bytes as TCP does and breaks as you want it; `SimulatedDisk` lies
under a `DurableOutbox`. `simulate` puts all of it under one seed, with faults and an oracle;
`survive` puts an engine of your own there.
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
