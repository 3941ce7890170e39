"""`trio-runner simulated`: the simulated engine against a real aggregator."""

import logging
import sys
from argparse import Namespace
from contextlib import suppress

import trio
from attrs import frozen

from trio_runner import (
    CommandError,
    EngineDispatcher,
    EngineRunner,
    Outbox,
    OutboxError,
    Timing,
)
from trio_runner._cli._keeping import Keeping, closing
from trio_runner._cli._log import log_to_stderr, say
from trio_runner._cli._secret import warn_of_visible_secret
from trio_runner._cli._signals import stop_on_signal
from trio_runner._cli._status import keep_serving
from trio_runner._cli._systemd import tell_systemd
from trio_runner.simulation import SimulatedEngine

FLUSH_S = 8
"""The time for sending what waits when the command is stopped (s), so that it ends within 10 s."""

CANNOT_USE_OUTBOX = 2


@frozen
class _Alone:
    """The command's only unit, in the form that `tell_systemd` needs."""

    name: str
    runner: EngineRunner
    failed: None = None
    ticks: None = None
    """None, since the engine ticks in Trio's thread and has no thread to watch."""


async def run(arguments: Namespace) -> int:
    """Run engine and runner until SIGINT or SIGTERM; return the exit code."""
    log_to_stderr(arguments.log_format, lambda: str(arguments.name))
    logging.getLogger("trio_runner").setLevel(logging.INFO)
    if arguments.is_secret_visible:
        warn_of_visible_secret()
    engine = SimulatedEngine(
        arguments.name,
        secret=arguments.secret,
        ignore_version_error=arguments.ignore_version_error,
    )
    keeping = Keeping("simulated", arguments.outbox, arguments.outbox_max)
    try:
        outbox = await trio.to_thread.run_sync(
            keeping.open, engine.name, engine, abandon_on_cancel=True
        )
    except OutboxError as error:
        print(f"trio-runner simulated: error: argument --outbox: {error}", file=sys.stderr)
        return CANNOT_USE_OUTBOX
    async with closing(outbox):
        await _run(arguments, engine, outbox)
    return 0


async def _run(arguments: Namespace, engine: SimulatedEngine, outbox: Outbox) -> None:
    dispatcher = EngineDispatcher(
        arguments.aggregator_hostname,
        arguments.aggregator_port,
        handlers=engine,
        **arguments.network,
    )

    def make_runner() -> EngineRunner:
        timing = Timing(flush_s=FLUSH_S)
        return EngineRunner(dispatcher, engine, engine, outbox=outbox, timing=timing)

    # If it has to end a run of before, it waits for the disk.
    runner = await trio.to_thread.run_sync(make_runner, abandon_on_cancel=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_serving, arguments, [runner])
        await _run_until_signalled(engine, runner, str(dispatcher))
        nursery.cancel_scope.cancel()


async def _run_until_signalled(
    engine: SimulatedEngine, runner: EngineRunner, aggregator: str
) -> None:
    stopping = trio.Event()

    async def invite() -> None:
        runner.connected_callback = runner.reconnected_callback = None
        say(f"{engine.name}: open {aggregator} and start a run there")

    runner.connected_callback = runner.reconnected_callback = invite
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping.set)
        nursery.start_soon(tell_systemd, [_Alone(engine.name, runner)], stopping)
        say(f"{engine.name}: looking for the aggregator at {aggregator}. Ctrl-C ends it.")
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await stopping.wait()
        with suppress(CommandError):  # no run is on
            engine.stop()  # otherwise the run would stay open at the aggregator
        await runner.shutdown()
        nursery.cancel_scope.cancel()
