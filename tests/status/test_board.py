"""What the board remembers of a unit, in virtual time."""

import trio
import trio.testing

from tests.status.hour import EPOCH, TIMING, Wave
from trio_runner import EngineDispatcher, EngineRunner, MemoryOutbox
from trio_runner.simulation import Aggregator
from trio_runner.status._board import POINTS_MAX, Board, Sight

ALARM_S = 60


async def a_unit(nursery: trio.Nursery, bytes_max: int = 2**20) -> tuple[Aggregator, Board]:
    aggregator, engine = Aggregator(), Wave("Wave", clock=lambda: EPOCH + trio.current_time())
    opener = aggregator.in_memory(nursery)
    dispatcher = EngineDispatcher(handlers=engine, open_stream=opener)
    outbox = MemoryOutbox(bytes_max)
    runner = EngineRunner(dispatcher, engine, engine, outbox=outbox, timing=TIMING)
    await nursery.start(runner.run)
    return aggregator, Board.of([runner], ALARM_S)


def look(board: Board) -> Sight:
    (sight,) = board.look()
    return sight


def is_thinned(sight: Sight) -> bool:
    return any("given up so far" in reason.text for reason in sight.reasons)


async def test_the_progress_of_catching_up_counts_what_waited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It counts from the backlog's first message to its last, although the board looks rarely."""
    async with trio.open_nursery() as nursery:
        aggregator, board = await a_unit(nursery)
        await trio.sleep(100)
        assert look(board).progress is None
        async with aggregator.outage(kill=True):
            await trio.sleep(100)
            waited = look(board)
            assert waited.statistics is not None
            assert waited.progress is None
            aggregator.handling_time_s = 1
        progress = None
        while progress is None or not progress.done:
            await trio.sleep(1)
            progress = look(board).progress
        # One message is handled a second, and a new sample comes every 5 s. More than those of a
        # minute cannot be new, so most of what is counted had waited.
        more = progress.done + progress.left - waited.statistics.outbox.waiting
        assert progress.left > 0
        assert 0 <= more <= 12
        aggregator.handling_time_s = 0
        await trio.sleep(30)
        assert look(board).progress is None
        nursery.cancel_scope.cancel()


async def test_thinning_is_told_until_the_alarm_time_has_passed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Seen or not while it happened, it is critical until 60 s after the last time."""
    async with trio.open_nursery() as nursery:
        aggregator, board = await a_unit(nursery, bytes_max=12_000)
        async with aggregator.outage():
            while not is_thinned(look(board)):  # noqa: ASYNC110 - the clock is virtual
                await trio.sleep(1)
        await trio.sleep(ALARM_S - 5)
        assert look(board).level == "critical"
        assert is_thinned(look(board))
        await trio.sleep(10)
        assert look(board).level == "ok"
        nursery.cancel_scope.cancel()


async def test_the_plots_hold_an_hour_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    """360 points, 10 s apart; the mean answer time is that of the answers between two points."""
    async with trio.open_nursery() as nursery:
        aggregator, board = await a_unit(nursery)
        aggregator.handling_time_s = 0.25
        for _ in range(POINTS_MAX + 10):
            board.sample()
            await trio.sleep(10)
        history = look(board).history
        assert len(history) == POINTS_MAX
        times = [point.answer_s for point in history]
        # A sample every 5 s is alone on the path, which takes 250 ms each.
        assert {round(answer_s or 0, 3) for answer_s in times} == {0.25}
        async with aggregator.outage():
            await trio.sleep(1)
            board.sample()
            await trio.sleep(10)
            board.sample()
        assert look(board).history[-1].answer_s is None
        assert look(board).history[-1].waiting > 0
        nursery.cancel_scope.cancel()
