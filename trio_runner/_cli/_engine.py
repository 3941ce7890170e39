"""`trio-runner engine`: real Open Pectus engines, each with its runner, in one process."""

import logging
import os
import sys
import threading
from argparse import ArgumentTypeError, _ArgumentGroup
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio
from attrs import define, evolve, field

from trio_runner import EngineRunner, NetworkOptions, Outbox, OutboxError, Timing
from trio_runner._cli import _config, _log, _network, _status_arguments, _version
from trio_runner._cli._keeping import Keeping, bytes_of, closing
from trio_runner._cli._network import network_options, split_where
from trio_runner._cli._secret import SecretUnusable, find_secret, warn_of_visible_secret
from trio_runner._cli._signals import stop_on_signal
from trio_runner._cli._status import keep_serving
from trio_runner._cli._systemd import tell_systemd
from trio_runner._cli._unit_files import file_name
from trio_runner._groups import first
from trio_runner._mistakes import FAILS
from trio_runner._outbox import OUTBOX_BYTES_MAX

if TYPE_CHECKING:
    from trio_runner import bridge

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_S = 4
"""The time for a connection to the hardware that is under way, and the time for stopping an engine
and disconnecting it (s)."""

FLUSH_S = 7
"""The time for sending what waits, after the engine has been stopped (s)."""

END_S = 14
"""The time for an orderly end, even if something hangs, such as a disk (s)."""

EXIT_S = 1
"""The time for the drivers' threads, when all else has ended (s)."""

ALL_FAILED, WRONG_ARGUMENTS, SOME_FAILED = 1, 2, 3
"""The exit codes when not all is well."""

PROGRAM = "trio-runner engine"

OLDEST_PYTHON = 3, 12
"""The oldest Python that Open Pectus runs on. With an older one pip leaves it out silently."""


class UnitFailed(Exception):
    """A unit cannot run; the message says why."""


def run(argv: list[str]) -> int:
    """Carry out the command; return the exit code.

    Raises SystemExit on wrong arguments and after `--help`.
    """
    try:
        from trio_runner import bridge
    except ModuleNotFoundError as error:
        if error.name != "openpectus":
            raise
        print(f"{PROGRAM}: error: {_how_to_install()}", file=sys.stderr)
        return WRONG_ARGUMENTS
    try:
        arguments = bridge.parse(argv, PROGRAM, _add_options, _config.parse)
        secret_source = _network.source(arguments.network, "secret_file", "--secret-file")
        secret = find_secret(arguments.secret, arguments.secret_file, source=secret_source)
        keeping = _keeping(arguments)
        host, network = _way(arguments)
        _status_arguments.check(arguments.network)
        _check_uods(arguments)
    except (_config.ConfigError, SecretUnusable, ArgumentTypeError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    _set_up_log(arguments)
    _log.say(bridge.banner())
    bridge.start_sentry(arguments.sentry_event_level)
    if arguments.secret:
        warn_of_visible_secret()
    arguments = evolve(arguments, secret=secret, hostname=host)
    if arguments.validate:
        return bridge.validate(arguments.uods)
    if arguments.show_register_details:
        return bridge.show_register_details(arguments.uods)
    before, patience = threading.enumerate(), _patience(END_S, ALL_FAILED)
    try:
        code = trio.run(_run_units, arguments, network, keeping, patience)
    finally:
        patience.cancel()
    _leave_behind(before, code)
    return code


def _how_to_install() -> str:
    install = "pip install '.[openpectus]' in the folder of this project"
    if sys.version_info >= OLDEST_PYTHON:
        return f"Open Pectus is not installed here: {install}"
    needed, here = (f"{major}.{minor}" for major, minor in (OLDEST_PYTHON, sys.version_info[:2]))
    return (
        f"this is Python {here}, and Open Pectus needs {needed} or newer: make a new environment"
        f" with that, and there {install}"
    )


def _add_options(group: _ArgumentGroup) -> None:
    _network.add_options(group)
    _log.add_options(group)
    _status_arguments.add_options(group)
    _config.add_options(group, "settings and units")
    _config.add_unit_option(group)
    _version.add_option(group)


def _set_up_log(arguments: "bridge.Arguments") -> None:
    """Set up the log as the arguments ask.

    With several units, Open Pectus's own log file names them too.
    """
    from trio_runner import bridge

    are_several = len(arguments.uods) > 1
    if are_several:
        bridge.name_units_in_log()
    _log.log_to_stderr(
        arguments.network.log_format, bridge.current_unit.get, names_units=are_several
    )


def _keeping(arguments: "bridge.Arguments") -> Keeping:
    """Return where the outboxes are kept. Raises ArgumentTypeError."""
    is_of_file = "outbox" in arguments.network.places  # the file's key names a folder
    bytes_max, is_for_several = OUTBOX_BYTES_MAX, len(arguments.uods) > 1 or is_of_file
    if arguments.outbox_max is not None:
        try:
            bytes_max = bytes_of(arguments.outbox_max)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"argument --outbox-max: {error}") from None
    return Keeping("engine", arguments.outbox, bytes_max, is_for_several)


def _check_uods(arguments: "bridge.Arguments") -> None:
    """Raise ArgumentTypeError if there is no file of any unit; one that is missing fails alone."""
    if not any(map(os.path.isfile, arguments.uods)):
        where = _network.source(arguments.network, "uod", "-uod")
        missing = ", ".join(map(os.path.abspath, arguments.uods))
        raise ArgumentTypeError(f"{where}: there is no file {missing}")


def _way(arguments: "bridge.Arguments") -> tuple[str, NetworkOptions]:
    """Return the aggregator's host and how it is reached. Raises ArgumentTypeError."""
    try:
        host, path = split_where(arguments.hostname)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"argument -ahn/--aggregator_hostname: {error}") from None
    return host, network_options(arguments.network, host, arguments.port, path)


def _patience(seconds: float, code: int) -> threading.Timer:
    """Return a timer that, once started, ends the process after so many seconds."""
    timer = threading.Timer(seconds, _exit, (seconds, code))
    timer.daemon = True
    return timer


def _exit(after_s: float, code: int) -> None:
    try:
        # Do not log: a hanging thread may hold the log's lock. Without a stderr, file descriptor 2
        # may belong to anything.
        if sys.stderr is not None:
            text = b"trio-runner engine: something hangs; ending without it after %g s\n"
            os.write(2, text % after_s)
    finally:
        os._exit(code)


def _leave_behind(before: Iterable[threading.Thread], code: int) -> None:
    """Make sure that the process ends, although the interpreter would wait for some threads.

    A driver's thread pool is one, even if its threads are daemons. Trio's own threads do not delay
    the end.
    """
    left = [thread for thread in threading.enumerate() if thread not in before]
    if any(not thread.name.startswith("Trio thread") for thread in left):
        _patience(EXIT_S, code).start()


async def _run_units(
    arguments: "bridge.Arguments",
    network: NetworkOptions,
    keeping: Keeping,
    patience: threading.Timer,
) -> int:
    """Run all units until SIGINT or SIGTERM, or until all have failed; return the exit code."""
    logger.info("Engine starting")
    stopping, names = trio.Event(), dict[str, Unit]()
    units = [Unit(path, arguments, network, keeping, stopping, names) for path in arguments.uods]

    def stop() -> None:
        patience.start()
        stopping.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stop)
        nursery.start_soon(tell_systemd, units, stopping)
        nursery.start_soon(keep_serving, arguments.network, units)
        async with trio.open_nursery() as running:
            for unit in units:
                running.start_soon(unit.run)
        nursery.cancel_scope.cancel()
    logger.info("Engine stopped")
    return _exit_code([unit.failed is not None for unit in units])


def _exit_code(failed: list[bool]) -> int:
    if all(failed):
        return ALL_FAILED
    return SOME_FAILED if any(failed) else 0


@define(eq=False)
class Unit:
    """One UOD with its engine, its runner and its outbox; a failure in it stops no other unit."""

    _path: str
    _arguments: "bridge.Arguments"
    _network: NetworkOptions
    _keeping: Keeping
    _stopping: trio.Event
    _names: "dict[str, Unit]"
    """Which unit of this process has which name."""
    name: str = field(init=False)
    """The name of the UOD's file, until the unit's own name is known."""
    runner: EngineRunner | None = field(default=None, init=False)
    failed: str | None = field(default=None, init=False)
    """Why the unit has failed."""
    _engine: "bridge.UodEngine | None" = field(default=None, init=False)
    _dispatcher: "bridge.UodDispatcher" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.name = os.path.basename(self._path)

    @property
    def ticks(self) -> int | None:
        """The number of ticks of the engine's thread, or None while it need not tick."""
        return None if self._engine is None else self._engine.ticks

    async def run(self) -> None:
        """Run until the command is stopped; return when the unit has ended in order or failed."""
        from trio_runner.bridge import current_unit

        current_unit.set(self.name)
        try:
            self._engine = engine = await self._set_up()
            if engine is not None:
                current_unit.set(engine.name)
                try:
                    if not self._stopping.is_set():
                        await self._run(engine)
                finally:
                    await self._stop(engine)  # noqa: ASYNC102 - shielded, its time is bounded
        except* UnitFailed as group:
            self._fail(str(first(group)))
        except* FAILS as group:  # only this unit fails; the others go on
            self._fail("it ended with an error", group)

    def _fail(self, why: str, error: BaseException | None = None) -> None:
        self.failed = self.failed or why
        logger.error("The unit of %s has failed: %s", self._path, why, exc_info=error)

    async def _set_up(self) -> "bridge.UodEngine | None":
        """Return the engine with its hardware connected, or None if the command is stopped first.

        A connection that is under way then has `STOP_S` to finish, so that no hardware stays
        connected.
        """
        return await self._in_thread(self._connect, STOP_S)

    async def _in_thread(self, work: Callable[[], T], patience_s: float = 0) -> T | None:
        """Do in a thread what may hang; return None if the command is stopped before it is done.

        Then it is left behind: neither the other units nor the end wait for it.
        """
        done = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_stopping, nursery.cancel_scope, patience_s)
            done = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
        return done

    async def _cancel_when_stopping(self, scope: trio.CancelScope, patience_s: float = 0) -> None:
        await self._stopping.wait()
        await trio.sleep(patience_s)
        scope.cancel()

    def _connect(self) -> "bridge.UodEngine":
        from trio_runner.bridge import UodEngine, UodUnusable, current_unit, load_uod

        try:
            uod = load_uod(self._path)
        except UodUnusable as error:
            raise UnitFailed(str(error)) from error
        name = str(uod.instrument)
        current_unit.set(name)
        if self._names.setdefault(name, self) is not self:
            raise UnitFailed(f"another unit of this command is also named {name!r}")
        self.name = name
        engine = UodEngine(
            uod,
            secret=self._arguments.secret,
            ignore_version_error=self._arguments.ignore_version_error,
            archive_folder=file_name(name) if len(self._arguments.uods) > 1 else None,
        )
        if not engine.connect():
            engine.stop()  # some hardware may be connected all the same
            raise UnitFailed(f"its hardware cannot be used: {engine.unusable}")
        return engine

    async def _run(self, engine: "bridge.UodEngine") -> None:
        outbox = await self._in_thread(partial(self._open_outbox, engine))
        if outbox is None:
            return
        async with closing(outbox):
            runner = await self._in_thread(partial(self._make_runner, engine, outbox))
            if runner is not None:
                self.runner = runner
                await self._keep_connected(engine, runner)

    def _open_outbox(self, engine: "bridge.UodEngine") -> Outbox:
        """Open the outbox of the unit; it waits for its disk."""
        try:
            return self._keeping.open(engine.name, engine.builder)
        except OutboxError as error:
            source = _network.source(self._arguments.network, "outbox", "--outbox")
            raise UnitFailed(f"{source}: {error}") from error

    def _make_runner(self, engine: "bridge.UodEngine", outbox: Outbox) -> EngineRunner:
        """Make the runner; if it has to end a run of before, it waits for the disk."""
        from trio_runner.bridge import UodDispatcher

        self._dispatcher = UodDispatcher(
            self._arguments.hostname,
            self._arguments.port,
            engine=engine,
            **self._network,
        )
        return EngineRunner(
            self._dispatcher,
            engine.builder,
            engine.emitter,
            outbox=outbox,
            timing=Timing(flush_s=FLUSH_S),
            resume_run=engine.run_id,
        )

    async def _keep_connected(self, engine: "bridge.UodEngine", runner: EngineRunner) -> None:
        async def start() -> None:
            await trio.to_thread.run_sync(engine.start, abandon_on_cancel=True)

        if not self._arguments.start_at_once:
            runner.first_steady_state_callback = start
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(runner.run)
                nursery.start_soon(self._warn_of_roles, engine, runner, self._dispatcher)
                if self._arguments.start_at_once:
                    nursery.start_soon(self._start_at_once, start)
                why = await self._ended(engine)
            finally:
                await self._stop(engine)  # noqa: ASYNC102 - so that the end of its run is flushed
            await runner.shutdown()
            nursery.cancel_scope.cancel()
        if why is not None:
            raise UnitFailed(why)

    async def _start_at_once(self, start: Callable[[], Awaitable[None]]) -> None:
        logger.info("Starting engine at once")
        await start()

    async def _ended(self, engine: "bridge.UodEngine") -> str | None:
        """Return why the engine's thread has ended, or None when the command is stopped."""
        from trio_runner.bridge import EngineStopped

        why = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_stopping, nursery.cancel_scope)
            try:
                await engine.ended()
            except EngineStopped as stopped:
                why = str(stopped)
            nursery.cancel_scope.cancel()
        return why

    async def _stop(self, engine: "bridge.UodEngine") -> None:
        """Stop an engine in a thread, because its hardware may hang."""
        with trio.move_on_after(STOP_S, shield=True) as patience:
            await trio.to_thread.run_sync(engine.stop, abandon_on_cancel=True)
        if patience.cancelled_caught:
            self._fail(f"it did not stop within {STOP_S} s; its hardware may still be connected")

    async def _warn_of_roles(
        self, engine: "bridge.UodEngine", runner: EngineRunner, dispatcher: "bridge.UodDispatcher"
    ) -> None:
        from trio_runner.bridge import warn_of_roles

        with runner.state_changes() as changes:
            async for change in changes:
                if change.after in ("Connected", "Reconnected"):
                    break
            else:
                return  # the runner has ended without a connection
        try:
            await trio.to_thread.run_sync(
                warn_of_roles, engine.uod, str(dispatcher), abandon_on_cancel=True
            )
        except Exception as error:
            logger.debug(
                "Could not find out whether the aggregator supports authentication: %r", error
            )
