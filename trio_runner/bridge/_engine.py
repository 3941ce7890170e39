"""The package's engine with its hardware, ticking in its own thread."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import trio
from openpectus import sentry
from openpectus.engine import main as package
from openpectus.engine.engine import Engine, EngineTiming
from openpectus.engine.engine_message_handlers import EngineMessageHandlers
from openpectus.engine.hardware_recovery import ErrorRecoveryConfig, ErrorRecoveryDecorator
from openpectus.lang.exec.clock import WallClock
from openpectus.lang.exec.tags import SystemTagName
from openpectus.lang.exec.timer import OneThreadTimer

from trio_runner._mistakes import FAILS
from trio_runner.bridge._builder import UodMessageBuilder
from trio_runner.bridge._emitter import UodEventEmitter
from trio_runner.bridge._logging import current_unit, take_error_log
from trio_runner.bridge._tags import LatestTags

logger = logging.getLogger(__name__)

TICK_S = 0.1
"""The time between two ticks of an engine (s), as in the package."""

LAST_TICK_S = 1.0
"""How long to wait for the current tick when an engine is stopped (s)."""


class EngineStopped(Exception):
    """An error has ended the engine's thread; its hardware is no longer controlled."""


class UodUnusable(Exception):
    """A UOD file does not give a unit; the message says why, in one line."""


class UodEngine:
    """An engine for a unit operation definition (`load_uod`).

    `archive_folder` is the name of a folder inside the package's archive folder, for the files of
    this engine's runs. Several engines in one process need one each, since the files are named only
    by the second.
    """

    def __init__(
        self,
        uod: Any,
        *,
        secret: str = "",
        ignore_version_error: bool = False,
        archive_folder: str | None = None,
    ) -> None:
        self.uod = uod
        self.name = str(uod.instrument)
        self.unusable: str | None = None
        """Why `connect` has failed."""
        self._is_stopped = False
        self._timer = _Timer(TICK_S)
        # Do not use the default: it is one object for all engines in the process.
        timing = EngineTiming(WallClock(), self._timer, TICK_S, 1.0)
        self._engine: Any = Engine(uod, timing, enable_archiver=True)
        self._engine.tag_updates = LatestTags()
        if archive_folder is not None:
            self._keep_archive_in(archive_folder)
        self.builder = UodMessageBuilder(self._engine, secret, ignore_version_error)
        self.emitter = UodEventEmitter(self._engine.emitter)
        self.handlers: dict[type, Callable[[Any], Awaitable[Any]]] = {}
        EngineMessageHandlers(self._engine, self)
        take_error_log(self.builder)

    def __str__(self) -> str:
        return self.name

    def set_rpc_handler(self, message_type: type, handler: Callable[[Any], Awaitable[Any]]) -> None:
        """Take a handler for a class of messages; the package calls this."""
        self.handlers[message_type] = handler

    @property
    def run_id(self) -> str | None:
        """The id of the current run, None if there is none. Before `start`, it is a restored run.

        Pass it to `EngineRunner(resume_run=...)`. If it is None, the runner ends any run that its
        outbox knows.
        """
        if not self._engine._runstate_started:
            return None
        run_id: str | None = self._engine._system_tags[SystemTagName.RUN_ID].get_value()
        return run_id

    @property
    def ticks(self) -> int | None:
        """How often the engine's thread has ticked, None while it is not running."""
        return self._timer.ticks if self._timer.running else None

    def _keep_archive_in(self, folder: str) -> None:
        archiver = self._engine._system_tags.get(SystemTagName.ARCHIVER)
        archiver.data_path = os.path.join(archiver.data_path, folder)
        os.makedirs(archiver.data_path, exist_ok=True)

    # Life cycle; these methods block

    def connect(self) -> bool:
        """Check the UOD, connect to the hardware, build the commands; return whether all is well.

        If it is not, the package logs the problem and `unusable` has the cause.
        """
        with _overhear() as heard:
            is_usable = package.run_validations(self.uod)
        if not is_usable:
            error = heard.error
            self.unusable = "the cause is not known" if error is None else _in_one_line(error)
            return False
        sentry.set_engine_uod(self.uod)
        status = self._engine._system_tags[SystemTagName.CONNECTION_STATUS]
        self.uod.hwl = ErrorRecoveryDecorator(self.uod.hwl, ErrorRecoveryConfig(), status)
        return True

    def start(self) -> None:
        """Start to tick, unless the engine already ticks or was stopped."""
        if not self._timer.running and not self._is_stopped:
            self._timer.unit = current_unit.get()
            self._engine.run()

    def stop(self) -> None:
        """Stop the engine's ticks, end its run, and disconnect its hardware.

        The outputs stay as they are. A second call does nothing.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self._timer.end()
        self._timer.join(LAST_TICK_S)
        if self._engine._runstate_started:
            # Without this, the run would stay open at the aggregator.
            self._engine.emitter.emit_on_stop()
            self._engine._runstate_started = False
        self._engine.stop()

    async def ended(self) -> None:
        """Wait until an error ends the engine's thread, then raise EngineStopped; never return."""
        await self._timer.ended()


class _Timer(OneThreadTimer):  # type: ignore[misc]
    """The package's timer, which also tells when an error ends its thread."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(interval_s)
        self.unit: str | None = None
        self.ticks = 0
        self._is_over = False
        self._failure: BaseException | None = None
        self._watchers: list[Callable[[], None]] = []
        self._starting = threading.Lock()

    def set_tick_fn(self, tick_fn: Callable[[float, float], None]) -> None:
        def tick(time_s: float, increment_s: float) -> None:
            tick_fn(time_s, increment_s)
            self.ticks += 1

        super().set_tick_fn(tick)

    def start(self) -> None:
        with self._starting:  # the engine may be stopped while it is being started
            if not self._is_over:
                super().start()

    def end(self) -> None:
        with self._starting:
            self._is_over = True
            self.stop()

    def ticker(self) -> None:
        current_unit.set(self.unit)
        try:
            super().ticker()
        except FAILS as error:  # a driver's sys.exit() also ends the thread
            if not self.running:  # the hardware was disconnected during the last tick
                logger.debug("The last tick failed", exc_info=True)
                return
            logger.exception("The engine's thread has ended with an error")
            self._failure = error
            for tell in self._watchers:
                tell()

    def join(self, timeout_s: float) -> None:
        thread = getattr(self, "thread", None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    async def ended(self) -> None:
        token, event = trio.lowlevel.current_trio_token(), trio.Event()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set, idempotent=True)

        self._watchers.append(tell)
        if self._failure is None:
            await event.wait()
        raise EngineStopped(f"The engine's thread has ended: {self._failure!r}")


def load_uod(path: str) -> Any:
    """Import a UOD file and return the unit operation definition that it creates.

    Raises UodUnusable, with the cause and, if known, the line of the file.
    """
    if not os.path.isfile(path):
        raise UodUnusable(f"there is no file {os.path.abspath(path)}")
    try:
        uod = package.create_uod(path)
    except FAILS as error:
        if _lacks_create(error.__cause__):
            name = os.path.basename(path)
            raise UodUnusable(f"{name} has no function create(), so it is no UOD") from error
        raise UodUnusable(f"{error}: {_cause_of(error, path)}") from error
    if not hasattr(uod, "instrument"):
        kind = type(uod).__name__
        raise UodUnusable(f"its create() returns a {kind}, not a unit operation definition")
    return uod


def _lacks_create(error: BaseException | None) -> bool:
    if not (isinstance(error, AttributeError) and isinstance(error.obj, ModuleType)):
        return False
    return (error.obj.__name__, error.name) == ("uod", "create")  # the package names it "uod"


def _cause_of(error: BaseException, path: str) -> str:
    """Return what went wrong in a UOD file and where, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    path = os.path.abspath(path)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = f"line {line}: " if line is not None else ""
    if isinstance(error, SyntaxError):
        return f"{where}SyntaxError: {error.msg}"
    return where + _in_one_line(error)


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class _Ear(logging.Filter):
    """Notes the exception being handled when this thread logs, because the package drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() == self._thread:
            self.error = sys.exc_info()[1] or self.error
        return True


@contextmanager
def _overhear() -> Generator[_Ear, None, None]:
    ear = _Ear()
    package.logger.addFilter(ear)
    try:
        yield ear
    finally:
        package.logger.removeFilter(ear)
