"""Closes, cuts, and failures in a row."""

import trio

from tests.faults.cases.case import BROKE_OFF, Case, Fault, moment
from tests.faults.proxy import CLOSE
from tests.faults.scene import Scene
from trio_runner.protocol import engine_messages as em


def closed(code: int) -> Fault:
    """Let the aggregator close cleanly with this code."""
    return moment(lambda scene: scene.aggregator.close(code))


async def closed_without_code(scene: Scene) -> None:
    """Close without a code or a reason."""
    await scene.proxy.inject_frame(CLOSE, b"")


async def restarted(scene: Scene) -> None:
    """Restart the aggregator cleanly."""
    await scene.aggregator.restart()


async def killed(scene: Scene) -> None:
    """Kill the aggregator and keep it away for a while."""
    async with scene.proxy.refusing():
        scene.aggregator.kill()
        await scene.noticed()
        await scene.noticed()


async def cut_with_answers_outstanding(scene: Scene) -> None:
    """Break the connection while the aggregator works slowly."""
    scene.aggregator.handling_time_s = 0.5
    await scene.aggregator.wait_until(lambda: scene.runner.statistics().unanswered > 1)
    scene.begin_fault()
    scene.proxy.cut()
    scene.aggregator.handling_time_s = 0


def cut_after(*, up: int | None = None, down: int | None = None) -> Fault:
    """Break the connection after this many bytes, in the middle of a frame."""

    def cut(scene: Scene) -> None:
        if up is not None:
            scene.proxy.link.up.bytes_left = up
        if down is not None:
            scene.proxy.link.down.bytes_left = down

    return moment(cut)


def second_failure(kind: type[em.EngineMessage]) -> Fault:
    """Break the link, and the next one at its first message of a kind, before the answer."""

    async def fault(scene: Scene) -> None:
        async def cut(message: em.EngineMessage) -> None:
            if isinstance(message, kind):
                scene.aggregator.on_message = None
                scene.proxy.cut()
                await trio.lowlevel.checkpoint()

        scene.proxy.cut()
        await scene.noticed()
        scene.aggregator.on_message = cut
        await scene.noticed()

    return fault


def dials_cut_after(**limits: float) -> Fault:
    """Break the link, then the next two dials."""

    async def fault(scene: Scene) -> None:
        limit = {"bytes_left": next(iter(limits.values()))}
        with scene.proxy.new_connections(**dict.fromkeys(limits, limit)):
            scene.proxy.cut()
            for _ in range(3):
                await scene.noticed()

    return fault


CASES = [
    # The connection is closed with 1000 or 1001 while idle.
    Case("closed 1000", closed(1000), ("code 1000",)),
    Case("closed 1001", closed(1001), ("code 1001",)),
    Case("closed 1011", closed(1011), ("code 1011",)),
    Case("closed 1012", closed(1012), ("code 1012",)),
    Case("closed without code", closed_without_code, ("code 1005",)),
    Case("restarted", restarted, ("code 1012",)),
    # A cut with answers outstanding.
    Case("cut", moment(lambda scene: scene.proxy.cut()), (BROKE_OFF,)),
    Case("reset", moment(lambda scene: scene.proxy.reset()), (BROKE_OFF,)),
    Case("cut, answers outstanding", cut_with_answers_outstanding, (BROKE_OFF,)),
    Case("cut after 100 bytes up", cut_after(up=100), (BROKE_OFF,)),
    Case("cut after 2,000 bytes up", cut_after(up=2000), (BROKE_OFF,), noticed_s=4),
    Case("cut after 1 byte down", cut_after(down=1), (BROKE_OFF,)),
    Case("cut after 40 bytes down", cut_after(down=40), (BROKE_OFF,), noticed_s=4),
    # A second failure during the first message after a reconnect.
    Case("second failure, UodInfo", second_failure(em.UodInfoMsg), (BROKE_OFF,), links=3, rate=8),
    Case("second failure, Method", second_failure(em.MethodMsg), (BROKE_OFF,), links=3, rate=8),
    Case(
        "second failure, RunStarted",
        second_failure(em.RunStartedMsg),
        (BROKE_OFF,),
        links=3,
        rate=8,
    ),
    Case(
        "second failure, sample", second_failure(em.TagsUpdatedMsg), (BROKE_OFF,), links=3, rate=8
    ),
    Case(
        "second failure, event",
        second_failure(em.WebPushNotificationMsg),
        (BROKE_OFF,),
        links=3,
        rate=8,
    ),
    # The aggregator is killed in mid-run and comes back.
    Case("killed", killed, (BROKE_OFF, "connection refused"), rate=8),
    Case(
        "registration cut",
        dials_cut_after(up=100),
        (BROKE_OFF, "during the regi"),
        back_s=4,
        rate=8,
    ),
    Case("answer cut", dials_cut_after(down=50), (BROKE_OFF, "during the regi"), back_s=4, rate=8),
]
