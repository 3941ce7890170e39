"""What a command writes to stderr: for people, for systemd's journal, or for programs.

Colours are for terminals. The journal notes each line's time itself, and takes its level from the
number at its beginning. For a program, each record is a JSON object on one line; so are Python's
warnings and the error that ends the process.
"""

import json
import logging
import os
import sys
import threading
from argparse import ArgumentParser, _ArgumentGroup
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TextIO

TEXT, JSON = "text", "json"

SYSLOG_LEVELS = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)
"""The lowest level for each of the journal's numbers."""

OWN = "trio_runner"
"""The logger whose messages are understood without a logger's name in front."""


def add_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the option that says how the log is written."""
    parser.add_argument(
        "--log-format",
        choices=(TEXT, JSON),
        default=TEXT,
        help="how to write the log to stderr: lines for people, or one JSON object per line"
        " (default: %(default)s)",
    )


def log_to_stderr(
    log_format: str, unit_of: Callable[[], str | None], *, names_units: bool = False
) -> None:
    """Write the log to stderr from now on, in place of any other handler that did.

    `unit_of` is called in the thread or task that logs. `names_units` puts the unit into the text.
    """
    handler = _handler(log_format)
    handler.addFilter(_Naming(unit_of, names_units=names_units))
    for other in list(logging.root.handlers):
        if isinstance(other, logging.StreamHandler) and other.stream is sys.stderr:
            logging.root.removeHandler(other)
    logging.root.addHandler(handler)
    if log_format == JSON:
        _log_what_python_prints()


def say(text: str) -> None:
    """Tell people something on stdout, or in the log if that is JSON.

    A program may read both streams together, and expects JSON in both.
    """
    if any(isinstance(handler.formatter, _Json) for handler in logging.root.handlers):
        logging.getLogger(OWN).info("%s", text)
    else:
        print(text, flush=True)


def _handler(log_format: str) -> logging.Handler:
    handler = logging.StreamHandler()
    if log_format == JSON:
        handler.setFormatter(_Json())
    elif sys.stderr is not None and sys.stderr.isatty():
        return _for_a_terminal()
    elif sys.stderr is not None and is_journal(sys.stderr):
        handler.setFormatter(_Journal("%(levelname)-7s %(about)s%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(about)s%(message)s"))
    return handler


def _for_a_terminal() -> logging.Handler:
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(
        console=Console(stderr=True),
        show_path=False,
        log_time_format="%H:%M:%S",
        omit_repeated_times=False,
    )
    handler.setFormatter(logging.Formatter("%(about)s%(message)s"))
    return handler


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream goes to systemd's journal and has not been redirected since."""
    try:
        file = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it has no file number, or is closed
        return False
    return environment.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"


class _Naming(logging.Filter):
    """Adds to a record its unit, and what is to stand before its message."""

    def __init__(self, unit_of: Callable[[], str | None], *, names_units: bool) -> None:
        super().__init__()
        self._unit_of, self._names_units = unit_of, names_units

    def filter(self, record: logging.LogRecord) -> bool:
        record.unit = unit = self._unit_of()
        name = f"[{unit}] " if self._names_units and unit is not None else ""
        is_own = record.name.partition(".")[0] == OWN
        record.about = name if is_own else f"{name}{record.name}: "
        return True


class _Journal(logging.Formatter):
    """Starts each line with its level, since a record with a traceback has many lines."""

    def format(self, record: logging.LogRecord) -> str:
        number = next(number for level, number in SYSLOG_LEVELS if record.levelno >= level)
        return "\n".join(f"<{number}>{line}" for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        told = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "unit": getattr(record, "unit", None),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            told["error"] = repr(record.exc_info[1])
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)  # ASCII, whatever stderr's encoding is


def _log_what_python_prints() -> None:
    """Turn Python's warnings and uncaught errors into records, so that stderr has only JSON."""
    logging.captureWarnings(True)
    logger = logging.getLogger(OWN)

    def tell_end(kind: type[BaseException], error: BaseException, _: object) -> None:
        logger.critical("Ended with an error: %s", kind.__name__, exc_info=error)

    def tell_thread(ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread is not None else "unknown"
        logger.error("The thread %s ended with an error", name, exc_info=ended.exc_value)

    sys.excepthook, threading.excepthook = tell_end, tell_thread
