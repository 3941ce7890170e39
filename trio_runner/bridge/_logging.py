"""Which of several engines in one process a log record belongs to.

The package expects one engine per process, so it keeps one queue for the page's error log. Here
records are stamped with the unit whose thread or task made them, and each engine takes its own. If
the unit is unknown, as in a thread that the hardware's driver started, all engines get the record.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from openpectus.engine import engine_message_builder as package

from trio_runner._printable import printable

T = TypeVar("T")

LOGGED_MAX = 300
"""The length to which a log record of the package about a command is cut (characters)."""

current_unit: ContextVar[str | None] = ContextVar("current_unit", default=None)
"""The unit that the current thread or task works for."""


class _Stamp(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.unit = current_unit.get()
        return True


package.frontend_logging_handler.addFilter(_Stamp())

_waiting: WeakKeyDictionary[object, tuple[str | None, SimpleQueue[Any]]] = WeakKeyDictionary()


def take_error_log(builder: object) -> None:
    """Keep the current unit's log records for this builder from now on."""
    _waiting[builder] = (current_unit.get(), SimpleQueue())


def with_own_error_log(builder: object, create: Callable[[], T]) -> T:
    """Call a function that empties the package's queue, with only one unit's records in it.

    Call this in one thread only.
    """
    _sort()
    if builder not in _waiting:
        take_error_log(builder)
    shared: Any = package.frontend_logging_queue
    package.frontend_logging_queue = _waiting[builder][1]
    try:
        return create()
    finally:
        package.frontend_logging_queue = shared


def _sort() -> None:
    while True:
        try:
            record = package.frontend_logging_queue.get_nowait()
        except Empty:
            return
        unit = getattr(record, "unit", None)
        for owner, queue in _waiting.values():
            if unit is None or owner is None or owner == unit:
                queue.put(record)


def name_units_in_log() -> None:
    """Make the root logger's handlers put the unit's name, if known, before each record."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Stamp())
        handler.setFormatter(_Naming(handler.formatter or logging.Formatter()))


class _Naming(logging.Formatter):
    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        unit = getattr(record, "unit", None)
        text = self._formatter.format(record)
        return text if unit is None else f"[{unit}] {text}"


class _OneLine(logging.Filter):
    """Keeps text that somebody sent from starting new lines in the log and from filling it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage(), LOGGED_MAX), None
        return True


logging.getLogger("openpectus.engine.engine_message_handlers").addFilter(_OneLine())
