"""The faults that a simulation may meet.

Every fault is a function of the world that it happens to and of chance of its own; it lasts as long
as the call, and what it has done is healed when it returns or is cancelled.
"""

from trio_runner.simulation.trials._faults import _aggregator, _engine, _network
from trio_runner.simulation.trials._faults._known import FAULTS

__all__ = ["FAULTS"]

KINDS = (_network, _aggregator, _engine)
"""Importing them is what fills the list."""
