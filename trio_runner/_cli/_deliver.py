"""`trio-runner outbox deliver`: its output and its exit code."""

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner, Timing
from trio_runner._cli._dead_engine import DeadEngine
from trio_runner._cli._delivery import WatchedDialer, deliver
from trio_runner._cli._secret import warn_of_visible_secret
from trio_runner._cli._signals import stop_on_signal
from trio_runner._cli._summary import count
from trio_runner._outbox_sqlite import Origin, OutboxSummary, origin_of, summarize

logger = logging.getLogger(__name__)

SOME_LEFT = 1
"""The exit code when messages are left in the file, waiting or set aside."""

FLUSH_S = 3
"""How long to go on sending what waits when the delivery is interrupted (s)."""

NOT_DESCRIBED = (
    "The outbox does not say what the unit is or who may see it. Start its engine once with this"
    " outbox, or give --for-all. Then everybody can see the unit, with only the tags of the"
    " messages that wait."
)

LINE_S = 10
"""How often to print a line of progress (s), where there is no terminal for a bar."""


def run(arguments: Namespace) -> int:
    """Deliver what an outbox holds; return the exit code. Raises an `OutboxError`."""
    before, origin = summarize(arguments.path), origin_of(arguments.path)
    if not before.waiting and before.open_run is None:
        print(f"Nothing waits in {arguments.path}.")
        return _left(arguments.path, before)
    console = Console(stderr=True)
    _log_to(console)
    if arguments.is_secret_visible:
        warn_of_visible_secret()
    if origin.uod_info is None and not arguments.for_all:
        print(f"trio-runner outbox deliver: error: {NOT_DESCRIBED}", file=sys.stderr)
        return SOME_LEFT
    delivered, refusal = trio.run(_deliver, arguments, origin, console)
    print(f"Delivered {count(delivered, 'message')} of {before.unit}.")
    if refusal is not None:
        print(f"trio-runner outbox deliver: error: {refusal}", file=sys.stderr)
    return _left(arguments.path, summarize(arguments.path))


def _left(path: str, summary: OutboxSummary) -> int:
    """Say what is left, and what to do with it."""
    aside = len(summary.set_aside)
    if summary.waiting:
        verb = "waits" if summary.waiting == 1 else "wait"
        print(f"{count(summary.waiting, 'message')} still {verb} in {path}.")
    if aside:
        print(
            f"{count(aside, 'message')} set aside, which the aggregator did not take: `trio-runner"
            f" outbox show {path}` says why, and `trio-runner outbox requeue {path}` lets them"
            " wait again."
        )
    return SOME_LEFT if summary.waiting or aside else 0


async def _deliver(
    arguments: Namespace, origin: Origin, console: Console
) -> tuple[int, str | None]:
    """Return how many messages were delivered and, if the aggregator let nobody in, why."""
    engine = DeadEngine.of(
        origin, arguments.secret, ignore_version_error=arguments.ignore_version_error
    )
    dispatcher = EngineDispatcher(
        arguments.aggregator_hostname,
        arguments.aggregator_port,
        handlers=engine,
        **arguments.network,
    )
    dialer, stopped = WatchedDialer(dispatcher), trio.Event()
    # An outbox without a limit thins nothing, however full it is.
    with DurableOutbox(arguments.path, bytes_max=sys.maxsize) as outbox:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, stopped.set)
            timing = Timing(flush_s=FLUSH_S)
            runner = EngineRunner(dialer, engine, engine, outbox=outbox, timing=timing)
            with _progress(console, f"{origin.uod_name} to {dispatcher}", len(outbox)) as show:
                await deliver(
                    runner,
                    dialer,
                    show=show,
                    stopped=stopped,
                    give_up_after_s=arguments.give_up_after,
                )
            nursery.cancel_scope.cancel()
        return outbox.statistics().delivered, dialer.refusal


@contextmanager
def _progress(
    console: Console, what: str, total: int
) -> Generator[Callable[[int], None], None, None]:
    """Give a function that shows the progress when called with the number of waiting messages."""
    if not console.is_terminal:
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(what, total=total)

        def show(waiting: int) -> None:
            progress.update(
                task, total=max(total, waiting), completed=max(total, waiting) - waiting
            )

        yield show


def _lines(what: str, total: int) -> Callable[[int], None]:
    due_at = trio.current_time()

    def show(waiting: int) -> None:
        nonlocal due_at
        if trio.current_time() >= due_at:
            due_at = trio.current_time() + LINE_S
            print(
                f"{what}: {waiting} of {count(total, 'message')} waiting",
                file=sys.stderr,
                flush=True,
            )

    return show


def _log_to(console: Console) -> None:
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
