"""Where messages wait: the interface, the kind in memory, and what every kind shares."""

from trio_runner._outbox._base import Outbox, Prepared
from trio_runner._outbox._entry import (
    COMMIT_S,
    DELIVERY,
    ENTRY_BYTES,
    MESSAGE_BYTES_MAX,
    OUTBOX_BYTES_MAX,
    RUN_EVENTS,
    STATE_TYPES,
    SUSPECT_LINKS,
    Delivery,
    Entry,
    is_too_big,
)
from trio_runner._outbox._journal import Journal
from trio_runner._outbox._line import FAILURES_MAX
from trio_runner._outbox._memory import MemoryOutbox
from trio_runner._outbox._statistics import OutboxStatistics
from trio_runner._outbox._threads import Condition, Lock, Threads

__all__ = [
    "COMMIT_S",
    "DELIVERY",
    "ENTRY_BYTES",
    "FAILURES_MAX",
    "MESSAGE_BYTES_MAX",
    "OUTBOX_BYTES_MAX",
    "RUN_EVENTS",
    "STATE_TYPES",
    "SUSPECT_LINKS",
    "Condition",
    "Delivery",
    "Entry",
    "Journal",
    "Lock",
    "MemoryOutbox",
    "Outbox",
    "OutboxStatistics",
    "Prepared",
    "Threads",
    "is_too_big",
]
