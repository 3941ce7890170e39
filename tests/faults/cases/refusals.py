"""Error answers, refused registrations, and dials that do not become links."""

import trio

from tests.faults.cases.case import BROKE_OFF, Case, Fault
from tests.faults.cases.nonsense import BAD_GATEWAY
from tests.faults.proxy import black_hole, saying
from tests.faults.scene import Scene
from trio_runner.protocol import MessageBase, ProtocolErrorMessage
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

RAISED = ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
UNKNOWN = m.ErrorMessage(message="No engine registered under id host_Unit")


def answered_once(kind: type[em.EngineMessage], answer: MessageBase) -> Fault:
    """Answer one message with an error."""

    async def fault(scene: Scene) -> None:
        async def object_to(message: em.EngineMessage) -> MessageBase | None:
            await trio.lowlevel.checkpoint()
            if not isinstance(message, kind):
                return None
            scene.aggregator.on_message = None
            return answer

        scene.aggregator.on_message = object_to
        await scene.aggregator.wait_until(lambda: scene.aggregator.on_message is None)

    return fault


async def poison(scene: Scene) -> None:
    """Never take a certain message."""
    never = ProtocolErrorMessage(protocol_msg="Message deserialization failed")

    async def object_to(message: em.EngineMessage) -> MessageBase | None:
        await trio.lowlevel.checkpoint()
        return never if "poison" in str(message) else None

    scene.aggregator.on_message = object_to
    scene.runner.on_notify_command("poison")
    scene.tell("good")
    await scene.arrived("good")
    scene.told.append("ErrorLogMsg")  # tells people of it, with the next sample
    await scene.arrived("ErrorLogMsg")
    assert scene.runner.statistics().outbox.set_aside == 1


async def refused_for_the_secret(scene: Scene) -> None:
    """Break the link, and let the aggregator have another secret for a while."""
    scene.aggregator.secret = "another"  # noqa: S105
    scene.proxy.cut()
    await scene.noticed()
    await scene.noticed()
    scene.aggregator.secret = "right"  # noqa: S105


async def refused_for_the_version(scene: Scene) -> None:
    """Break the link, and let the aggregator have another version for a while."""
    version, scene.aggregator.version = scene.aggregator.version, "0.9"
    scene.proxy.cut()
    await scene.noticed()
    await scene.noticed()
    scene.aggregator.version = version


async def refused(scene: Scene) -> None:
    """Break the link, and refuse connections for a while."""
    async with scene.proxy.refusing():
        scene.proxy.cut()
        for _ in range(4):
            await scene.noticed()


async def black_holed(scene: Scene) -> None:
    """Break the link, accept a dial and never answer it."""
    with scene.proxy.welcome(black_hole):
        scene.proxy.cut()
        await scene.noticed()
        await scene.noticed()


def another_server(words: bytes) -> Fault:
    """Break the link, and let something else answer for a while."""

    async def fault(scene: Scene) -> None:
        with scene.proxy.welcome(saying(words)):
            scene.proxy.cut()
            await scene.noticed()
            await scene.noticed()

    return fault


CASES = [
    # Error answers
    Case(
        "handler raised",
        answered_once(em.WebPushNotificationMsg, RAISED),
        ("which is tried again",),
        links=1,
        passed=("just before",),
    ),
    Case(
        "engine unknown",
        answered_once(em.WebPushNotificationMsg, UNKNOWN),
        ("does not know this",),
        passed=("just before",),
    ),
    Case("poison", poison, ("is set aside",), links=1),
    # Registration refused (secret, version): the wait is then always 10 s.
    Case("wrong secret", refused_for_the_secret, (BROKE_OFF, "secret"), back_s=10, rate=8),
    Case("wrong version", refused_for_the_version, (BROKE_OFF, "0.9"), back_s=10, rate=8),
    # A dial that leads to nothing. The wait after the first is at most 2 s, after the second 4 s.
    Case("connection refused", refused, (BROKE_OFF, "connection refused"), rate=8),
    Case("black hole", black_holed, (BROKE_OFF, "did not let us in"), rate=8),
    Case(
        "SSH answers",
        another_server(b"SSH-2.0-OpenSSH_9.2\r\n"),
        (BROKE_OFF, "not speak HTTP"),
        rate=8,
    ),
    Case("a proxy answers", another_server(BAD_GATEWAY), (BROKE_OFF, "A proxy answers"), rate=8),
]
