"""The outbox on disk: SQLite, one file for one engine, owned by one process at a time.

`DurableOutbox` keeps the line in memory and writes it to a file: events before they count as
queued, everything else in a batch every `COMMIT_S`.

`summarize`, `export`, `examine` and `origin_of` look at a file, also while an engine runs with it.
`requeue` and `discard` change the file of an engine that has ended.
"""

from trio_runner._outbox_sqlite._checking import Checked, examine
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
from trio_runner._outbox_sqlite._origin import Origin, origin_of
from trio_runner._outbox_sqlite._requeue import Requeued, requeue
from trio_runner._outbox_sqlite._snapshot import is_locked

__all__ = [
    "Checked",
    "DurableOutbox",
    "NotAnOutbox",
    "Origin",
    "OutboxClosed",
    "OutboxDamaged",
    "OutboxError",
    "OutboxInUse",
    "OutboxNotFound",
    "OutboxNotWritable",
    "OutboxOfAnotherUnit",
    "OutboxSummary",
    "OutboxTooNew",
    "Requeued",
    "SetAside",
    "discard",
    "examine",
    "export",
    "is_locked",
    "origin_of",
    "requeue",
    "summarize",
]
