"""`trio-runner demo`: a run that survives an outage, all in one process.

An aggregator stand-in listens on a real port, and the runner connects a simulated engine to it.
"""

import logging
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

import trio

from trio_runner import EngineDispatcher, EngineRunner, Timing
from trio_runner._cli import _view
from trio_runner._cli._demo_picture import Notebook
from trio_runner._cli._signals import stop_on_signal
from trio_runner._cli._story import HANDLING_S, Demo, RecordingOutbox
from trio_runner._cli._summary import summarize
from trio_runner._cli._written import Unwritable, written
from trio_runner.simulation import Aggregator, SimulatedEngine

WRONG_ARGUMENTS = 2

DATA_LOG_INTERVAL_S = 0.1
"""The aggregator stores each tag at most this often, so meanwhile tags are sampled this often."""


class NoteHandler(logging.Handler):
    """Notes the runner's warnings among the things that happen in the demo."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())


@asynccontextmanager
async def staged(tell: Callable[[float, str], None], seed: int) -> AsyncGenerator[Demo, None]:
    """Run aggregator, engine and runner while the block runs; after it, end them in order."""
    aggregator, outbox = Aggregator(handling_time_s=HANDLING_S), RecordingOutbox()
    engine = SimulatedEngine(seed=seed, data_log_interval_s=DATA_LOG_INTERVAL_S)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        dispatcher = EngineDispatcher("127.0.0.1", port, handlers=engine)
        runner = EngineRunner(dispatcher, engine, engine, timing=Timing(flush_s=2), outbox=outbox)
        demo = Demo(aggregator, runner, outbox, str(dispatcher), tell)
        runner.state_changing_callback = demo.note_change
        handler = NoteHandler(demo.note)
        # After the block nobody listens to warnings. Without a handler they would go to stderr.
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger().addHandler(handler)
        try:
            demo.note(
                f"a stand-in for the aggregator listens at {dispatcher}; it takes"
                f" {HANDLING_S * 1000:.0f} ms for each message"
            )
            await nursery.start(engine.run)
            await nursery.start(runner.run)
            yield demo
            await runner.shutdown()
        finally:
            logging.getLogger().removeHandler(handler)
        nursery.cancel_scope.cancel()


def play(seed: int, html: str | None) -> int:
    """Play the demo, and draw it into a file if one is named; return the exit code."""
    try:
        with written("html", html) as page:
            return trio.run(run, seed, page)
    except Unwritable as error:
        print(f"trio-runner demo: error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS


async def run(seed: int, page: TextIO | None = None) -> int:
    """Play the demo, as a picture on a terminal and as lines elsewhere; return the exit code."""
    console = _view.terminal()
    story = trio.CancelScope()
    notebook = Notebook()

    def tell(time_s: float, text: str) -> None:
        notebook.note(time_s, text)
        if console is None:
            print(f"{time_s:5.1f} s  {text}", flush=True)

    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, story.cancel)
        async with staged(tell, seed) as demo, trio.open_nursery() as beside:
            if page is not None:
                beside.start_soon(notebook.look, demo)
            with story:
                await (demo.play() if console is None else _view.show(demo, console))
            beside.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    summary = summarize(demo.records(interrupted=story.cancelled_caught))
    if console is None:
        print(*summary.lines, sep="\n", flush=True)
    else:
        _view.conclude(demo, summary, console)
    if page is not None:
        page.write(notebook.picture(demo, summary.lines[0], is_bad=summary.exit_code != 0))
        print(f"picture  {page.name}")
    return summary.exit_code
