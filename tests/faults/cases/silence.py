"""Links that carry nothing, or little."""

import socket

import trio

from tests.faults.cases.case import NO_ANSWER, STILL_HELD, Case, Fault
from tests.faults.scene import Scene
from trio_runner.protocol import engine_messages as em


def half_open(*, up: bool = False, down: bool = False) -> Fault:
    """Let nothing pass one way or both, without telling either side."""

    async def fault(scene: Scene) -> None:
        with scene.proxy.half_open(up=up, down=down):
            await scene.noticed()

    return fault


async def forgotten(scene: Scene) -> None:
    """Forget the connection on the way, so that the aggregator never hears of its end."""
    # The aggregator's own pings, every 20 s with 20 s for the answer, end it.
    with scene.proxy.half_open(up=True, down=True):
        await scene.noticed()
        await scene.aggregator.wait_until(
            lambda: not scene.aggregator.is_connected(scene.aggregator.engine().engine_id)
        )


async def back_pressure(scene: Scene) -> None:
    """Stop reading from the engine in the middle of a large message."""
    scene.streams[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with scene.proxy.back_pressure():
        scene.tell("x" * 500_000)  # more than the kernel buffers, as we let it buffer little
        await scene.noticed()


async def muted(scene: Scene) -> None:
    """Let the aggregator handle everything and answer nothing."""
    scene.aggregator.muted = True
    await scene.noticed()
    scene.aggregator.muted = False


async def one_answer_missing(scene: Scene) -> None:
    """Leave one event unanswered, but answer what comes after it."""
    muted: list[str] = []

    async def mute(message: em.EngineMessage) -> None:
        is_first = isinstance(message, em.WebPushNotificationMsg) and not muted
        scene.aggregator.muted = is_first
        if is_first:
            muted.append("this")
        await trio.lowlevel.checkpoint()

    scene.aggregator.on_message = mute
    await scene.noticed()
    scene.aggregator.on_message, scene.aggregator.muted = None, False


async def one_sample_unanswered(scene: Scene) -> None:
    """Leave one sample unanswered, but answer what comes after it."""
    missed: list[int] = []

    async def mute(message: em.EngineMessage) -> None:
        if isinstance(message, em.TagsUpdatedMsg) and not missed:
            missed.append(message.sequence_number)
        scene.aggregator.muted = missed == [message.sequence_number]
        await trio.lowlevel.checkpoint()

    scene.aggregator.on_message = mute
    await scene.noticed()
    scene.aggregator.on_message, scene.aggregator.muted = None, False


async def slow_link(scene: Scene) -> None:
    """Slow the link to 4,000 bytes a second and 0.2 s each way for a while."""
    with scene.proxy.slow(bytes_per_s=4_000, latency_s=0.2):
        scene.tell("while slow")
        await scene.samples(10)


async def slow_handler(scene: Scene) -> None:
    """Let the aggregator take 0.2 s for each message for a while."""
    scene.aggregator.handling_time_s = 0.2
    scene.tell("while slow")
    await scene.samples(10)
    scene.aggregator.handling_time_s = 0


CASES = [
    # One answer never comes; the aggregator reads and never answers.
    Case("muted", muted, (NO_ANSWER,), noticed_s=10, rate=8),
    Case("one answer missing", one_answer_missing, (NO_ANSWER,), noticed_s=10, rate=8),
    # The unanswered message is the next sample, which is taken up to 0.3 s later.
    Case("one sample unanswered", one_sample_unanswered, (NO_ANSWER,), noticed_s=10.3, rate=8),
    # Half-open in either direction or both, or back pressure without end.
    Case("half-open up", half_open(up=True), (NO_ANSWER,), noticed_s=10, rate=8),
    Case("half-open down", half_open(down=True), (NO_ANSWER,), noticed_s=10, rate=8),
    Case("half-open both", half_open(up=True, down=True), (NO_ANSWER,), noticed_s=10, rate=8),
    Case("back pressure", back_pressure, (NO_ANSWER,), noticed_s=10, rate=8),
    # It is back within the longest wait and a dial.
    Case("forgotten", forgotten, (NO_ANSWER, STILL_HELD), noticed_s=10, back_s=10, rate=8),
    # Slow, but no reason to give up the link.
    Case("slow link", slow_link, (), links=1, back_s=4, rate=8),
    Case("slow handler", slow_handler, (), links=1, rate=8),
]
