"""`trio-runner simulated`: the simulated engine against a real aggregator."""

import logging
import sys
from argparse import Namespace
from contextlib import suppress

import trio

from trio_runner import CommandError, EngineDispatcher, EngineRunner
from trio_runner._cli._signals import stop_on_signal
from trio_runner.simulation import SimulatedEngine


async def run(arguments: Namespace) -> int:
    """Run engine and runner until SIGINT or SIGTERM; return the exit code."""
    _log_to_stderr()
    engine = SimulatedEngine(
        arguments.name,
        secret=arguments.secret,
        ignore_version_error=arguments.ignore_version_error,
    )
    dispatcher = EngineDispatcher(
        arguments.aggregator_hostname,
        arguments.aggregator_port,
        handlers=engine,
        secure=arguments.secure,
        ca_file=arguments.ca_file,
    )
    runner = EngineRunner(dispatcher, engine, engine)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping.set)
        print(f"{engine.name}: open {dispatcher} and start a run there. Ctrl-C ends.", flush=True)
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await stopping.wait()
        with suppress(CommandError):  # there is no run to end
            engine.stop()  # left open, it would stay open at the aggregator
        await runner.shutdown()
        nursery.cancel_scope.cancel()
    return 0


def _log_to_stderr() -> None:
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True),
            show_path=False,
            log_time_format="%H:%M:%S",
            omit_repeated_times=False,
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("trio_runner").setLevel(logging.INFO)
