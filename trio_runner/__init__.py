"""Keeps an Open Pectus engine connected to its aggregator, with Trio's structured concurrency."""

from trio_runner._backoff import MAX_RECONNECT_WAIT_SECONDS
from trio_runner._engine import (
    BlockInfo,
    CommandHandlers,
    ConnectionStatus,
    EventEmitter,
    EventListener,
    MessageBuilder,
    RunStateChange,
    ScopeInfo,
)
from trio_runner._errors import (
    AggregatorUnreachable,
    AlreadyConnected,
    CommandError,
    DialError,
    LinkLost,
    NetworkError,
    NotAnAggregator,
    RegistrationRefused,
    SecretRefused,
    TrioRunnerError,
    VersionRefused,
)
from trio_runner._histogram import Histogram
from trio_runner._outbox import MemoryOutbox, Outbox, OutboxStatistics
from trio_runner._outbox_sqlite import (
    DurableOutbox,
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
from trio_runner._plain_engine import PlainEngine
from trio_runner._runner import EngineRunner, StateChange, Statistics
from trio_runner._states import RecoverState
from trio_runner._timing import Timing
from trio_runner.net import (
    Dialer,
    EngineDispatcher,
    NetworkOptions,
    ProxyUnusable,
    Session,
    StreamOpener,
    TlsFileUnusable,
)

__all__ = [
    "MAX_RECONNECT_WAIT_SECONDS",
    "AggregatorUnreachable",
    "AlreadyConnected",
    "BlockInfo",
    "CommandError",
    "CommandHandlers",
    "ConnectionStatus",
    "DialError",
    "Dialer",
    "DurableOutbox",
    "EngineDispatcher",
    "EngineRunner",
    "EventEmitter",
    "EventListener",
    "Histogram",
    "LinkLost",
    "MemoryOutbox",
    "MessageBuilder",
    "NetworkError",
    "NetworkOptions",
    "NotAnAggregator",
    "NotAnOutbox",
    "Outbox",
    "OutboxClosed",
    "OutboxDamaged",
    "OutboxError",
    "OutboxInUse",
    "OutboxNotFound",
    "OutboxNotWritable",
    "OutboxOfAnotherUnit",
    "OutboxStatistics",
    "OutboxTooNew",
    "PlainEngine",
    "ProxyUnusable",
    "RecoverState",
    "RegistrationRefused",
    "RunStateChange",
    "ScopeInfo",
    "SecretRefused",
    "Session",
    "StateChange",
    "Statistics",
    "StreamOpener",
    "Timing",
    "TlsFileUnusable",
    "TrioRunnerError",
    "VersionRefused",
]
