"""The outbox on disk: SQLite, one file for one engine, owned by one process at a time.

DurableOutbox   the line in memory, told to a file: events before they count as queued, the
rest in a batch every `COMMIT_S`
offline         `summarize`, `export` and `discard` work on the file of an engine that has ended
"""

from trio_runner._outbox_sqlite._durable import DurableOutbox
from trio_runner._outbox_sqlite._errors import (
    NotAnOutbox,
    OutboxClosed,
    OutboxDamaged,
    OutboxError,
    OutboxInUse,
    OutboxNotFound,
    OutboxNotWritable,
    OutboxOfAnotherUnit,
    OutboxTooNew,
)
from trio_runner._outbox_sqlite._offline import (
    OutboxSummary,
    SetAside,
    discard,
    export,
    summarize,
)

__all__ = [
    "DurableOutbox",
    "NotAnOutbox",
    "OutboxClosed",
    "OutboxDamaged",
    "OutboxError",
    "OutboxInUse",
    "OutboxNotFound",
    "OutboxNotWritable",
    "OutboxOfAnotherUnit",
    "OutboxSummary",
    "OutboxTooNew",
    "SetAside",
    "discard",
    "export",
    "summarize",
]
