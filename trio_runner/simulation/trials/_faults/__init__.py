"""The faults that a simulation may meet.

Every fault is a function that takes a world and a random generator of its own. The fault lasts as
long as the call, and its effect is undone when the call returns or is cancelled.
"""

from trio_runner.simulation.trials._faults import _aggregator, _engine, _network
from trio_runner.simulation.trials._faults._known import FAULTS

__all__ = ["FAULTS"]

KINDS = (_network, _aggregator, _engine)
"""Importing these modules fills the list."""
