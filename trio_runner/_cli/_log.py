"""What a command writes to stderr: for people, for systemd's journal, or for programs.

Colours are for terminals. The journal notes the time of a line itself, and of which level it is
where the line begins with its number. For a program each record is a JSON object on a line, also a
warning of Python's and the error that ends the process.
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
"""From which level on which number stands for it in the journal."""

OWN = "trio_runner"
"""The loggers whose messages need no name to be understood."""


def add_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the option that says how the log is written."""
    parser.add_argument(
        "--log-format",
        choices=(TEXT, JSON),
        default=TEXT,
        help="what is written to stderr: lines for people, or a JSON object a line"
        " (default: %(default)s)",
    )


def log_to_stderr(
    log_format: str, unit_of: Callable[[], str | None], *, names_units: bool = False
) -> None:
    """Write the log to stderr from now on, and to no other handler that did.

    `unit_of` is asked in the thread or task that logs; `names_units` puts the unit into the text.
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
    """Tell people something on stdout; programs, which may read both together, in the log."""
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
    """Tell whether systemd's journal reads a stream, which was not redirected since."""
    try:
        file = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it is none, or closed
        return False
    return environment.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"


class _Naming(logging.Filter):
    """Notes at a record which unit it is of, and what stands before its message."""

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
    """Gives each line its level, of which a record with a traceback has many."""

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
        return json.dumps(told)  # in ASCII, whatever stderr's encoding


def _log_what_python_prints() -> None:
    """Let nothing stand on stderr that is no JSON."""
    logging.captureWarnings(True)
    logger = logging.getLogger(OWN)

    def tell_end(kind: type[BaseException], error: BaseException, _: object) -> None:
        logger.critical("Ended by an error: %s", kind.__name__, exc_info=error)

    def tell_thread(ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread is not None else "unknown"
        logger.error("The thread %s ended by an error", name, exc_info=ended.exc_value)

    sys.excepthook, threading.excepthook = tell_end, tell_thread
