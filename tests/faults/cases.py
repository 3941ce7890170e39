"""What can go wrong with a link, as data.

The comment above a group is the row of the table of promises that it belongs to.
"""

import socket
from collections.abc import Awaitable, Callable

import trio
from attrs import field, frozen

from tests.faults.proxy import BINARY, CLOSE, TEXT, black_hole, saying
from tests.faults.scene import Scene
from trio_runner.protocol import (
    DISPATCH,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    Response,
    encode_request,
    encode_response,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl

Fault = Callable[[Scene], Awaitable[None]]
"""Does the harm and returns when it is undone."""

CALL_ID = "ab" * 16

BROKE_OFF = r"broke off"
NO_ANSWER = r"did not answer a (ping|message) within"
BREACH = r"breach of the protocol"
STILL_HELD = r"still holds a connection"


@frozen
class Case:
    """A fault, and what is promised of it; times are in seconds of the runner's clock."""

    name: str
    fault: Fault
    reasons: tuple[str, ...] = ()
    """What is logged, in order; the last that a failure gave stands in the statistics."""
    noticed_s: float = 2
    """Within which the runner must say that its link has failed, if it has to."""
    back_s: float = 2
    """Within which, once the fault is undone, everything must have been delivered."""
    links: int = 2
    """How many links there are in all; 1: the link outlives the fault."""
    rate: float = field(default=6.0, kw_only=True)
    """How much faster than the world's clock the runner's runs."""


def moment(harm: Callable[[Scene], object]) -> Fault:
    """Return a fault that is done in a moment and stays as it is."""

    async def fault(scene: Scene) -> None:
        harm(scene)
        await trio.lowlevel.checkpoint()

    return fault


# Closes and cuts


def closed(code: int) -> Fault:
    """Let the aggregator close in order."""

    def close(scene: Scene) -> None:
        for link in list(scene.aggregator._links):
            link.close(code)

    return moment(close)


async def closed_without_code(scene: Scene) -> None:
    """Close without a reason."""
    await scene.proxy.inject_frame(CLOSE, b"")


async def restarted(scene: Scene) -> None:
    """Restart the aggregator in order."""
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
    """Break the connection in the middle of a frame."""

    def cut(scene: Scene) -> None:
        if up is not None:
            scene.proxy.link.up.bytes_left = up
        if down is not None:
            scene.proxy.link.down.bytes_left = down

    return moment(cut)


def second_failure(kind: type[em.EngineMessage]) -> Fault:
    """Break the link, and the next at its first message of a kind, before the answer."""

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
    """Break the link, and what is dialled next, twice."""

    async def fault(scene: Scene) -> None:
        limit = {"bytes_left": next(iter(limits.values()))}
        with scene.proxy.new_connections(**dict.fromkeys(limits, limit)):
            scene.proxy.cut()
            for _ in range(3):
                await scene.noticed()

    return fault


# Silence


def half_open(*, up: bool = False, down: bool = False) -> Fault:
    """Let nothing pass and tell nobody."""

    async def fault(scene: Scene) -> None:
        with scene.proxy.half_open(up=up, down=down):
            await scene.noticed()

    return fault


async def forgotten(scene: Scene) -> None:
    """Forget the connection between both: the aggregator never hears of its end."""
    # Its own pings, every 20 s with 20 s for the answer, end it.
    with scene.proxy.half_open(up=True, down=True):
        await scene.noticed()
        await scene.aggregator.wait_until(
            lambda: not scene.aggregator.is_connected(scene.aggregator.engine().engine_id)
        )


async def back_pressure(scene: Scene) -> None:
    """Read nothing from the engine any more, in the middle of something large."""
    scene.streams[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with scene.proxy.back_pressure():
        scene.tell("x" * 500_000)  # more than the kernel buffers, once told to buffer little
        await scene.noticed()


async def muted(scene: Scene) -> None:
    """Let the aggregator handle everything and answer nothing."""
    scene.aggregator.muted = True
    await scene.noticed()
    scene.aggregator.muted = False


async def one_answer_missing(scene: Scene) -> None:
    """Leave one event without an answer, but not what comes behind."""
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
    """Leave one sample without an answer, but not what comes behind."""
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
    """Make the link one of 4,000 bytes a second and 0.2 s each way, for a while."""
    with scene.proxy.slow(bytes_per_s=4_000, latency_s=0.2):
        scene.tell("while slow")
        await scene.samples(10)


async def slow_handler(scene: Scene) -> None:
    """Let the aggregator take 0.2 s over each message, for a while."""
    scene.aggregator.handling_time_s = 0.2
    scene.tell("while slow")
    await scene.samples(10)
    scene.aggregator.handling_time_s = 0


# Nonsense


def garbage(data: bytes) -> Fault:
    """Send bytes that are no websocket frame."""

    async def fault(scene: Scene) -> None:
        await scene.proxy.inject(data)

    return fault


def frames(opcode: int, payload: bytes, times: int = 1) -> Fault:
    """Send frames that no aggregator would send."""

    async def fault(scene: Scene) -> None:
        for _ in range(times):
            await scene.proxy.inject_frame(opcode, payload)

    return fault


async def again_and_again(scene: Scene) -> None:
    """Greet each link with nonsense."""
    for _ in range(3):
        await scene.proxy.inject_frame(TEXT, b"nonsense")
        await scene.noticed()
        await scene.until("Reconnected")


async def long_method(scene: Scene) -> None:
    """Give a command of 2 MiB, which is one like any other."""
    content = "a" * (2 << 20)
    method = mdl.Method(version=1, lines=[mdl.MethodLine(id="1", content=content)])
    engine_id = scene.aggregator.engine().engine_id
    answer = await scene.aggregator.call(engine_id, am.MethodMsg(method=method))
    assert isinstance(answer, m.SuccessMessage)
    assert scene.unit.method == method


# Answers and refusals


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
    """Never take one of the messages."""
    never = ProtocolErrorMessage(protocol_msg="Message deserialization failed")

    async def object_to(message: em.EngineMessage) -> MessageBase | None:
        await trio.lowlevel.checkpoint()
        return never if "poison" in str(message) else None

    scene.aggregator.on_message = object_to
    scene.runner.on_notify_command("poison")
    scene.tell("good")
    await scene.arrived("good")
    assert scene.runner.statistics().outbox.set_aside == 1


async def refused_for_the_secret(scene: Scene) -> None:
    """Break the link and let the aggregator have another secret for a while."""
    scene.aggregator.secret = "another"  # noqa: S105
    scene.proxy.cut()
    await scene.noticed()
    await scene.noticed()
    scene.aggregator.secret = "right"  # noqa: S105


async def refused_for_the_version(scene: Scene) -> None:
    """Break the link and let the aggregator have another version for a while."""
    version, scene.aggregator.version = scene.aggregator.version, "0.9"
    scene.proxy.cut()
    await scene.noticed()
    await scene.noticed()
    scene.aggregator.version = version


async def refused(scene: Scene) -> None:
    """Break the link and refuse connections for a while."""
    async with scene.proxy.refusing():
        scene.proxy.cut()
        for _ in range(4):
            await scene.noticed()


async def black_holed(scene: Scene) -> None:
    """Break the link, take a dial and never answer it."""
    with scene.proxy.welcome(black_hole):
        scene.proxy.cut()
        await scene.noticed()
        await scene.noticed()


def another_server(words: bytes) -> Fault:
    """Break the link and let something else answer for a while."""

    async def fault(scene: Scene) -> None:
        with scene.proxy.welcome(saying(words)):
            scene.proxy.cut()
            await scene.noticed()
            await scene.noticed()

    return fault


BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
RAISED = ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
UNKNOWN = m.ErrorMessage(message="No engine registered under id host_Unit")

UNKNOWN_METHOD = encode_request(Request("sing_async", {"song": "any"}, CALL_ID)).encode()
WRONG_ARGUMENTS = encode_request(Request(DISPATCH, {"message_json": [1]}, CALL_ID)).encode()
NO_ARGUMENTS = encode_request(Request(DISPATCH, {}, CALL_ID)).encode()
UNASKED_ANSWER = encode_response(Response("pong", "str", CALL_ID)).encode()
NO_CALL = r"sent a frame that is no remote call"

CASES = [
    # connection closed with 1000 or 1001 while idle
    Case("closed 1000", closed(1000), ("code 1000",)),
    Case("closed 1001", closed(1001), ("code 1001",)),
    Case("closed 1011", closed(1011), ("code 1011",)),
    Case("closed 1012", closed(1012), ("code 1012",)),
    Case("closed without code", closed_without_code, ("code 1005",)),
    Case("restarted", restarted, ("code 1012",)),
    # a frame that is no JSON ..., garbage below the websocket
    Case("no JSON", frames(TEXT, b"nonsense"), (NO_CALL,)),
    Case("empty text", frames(TEXT, b""), (NO_CALL,)),
    Case("empty binary", frames(BINARY, b""), (NO_CALL,)),
    Case("binary, not UTF-8", frames(BINARY, b"\xff\xfe\x00"), (NO_CALL,)),
    Case("text, not UTF-8", frames(TEXT, b"\xff\xfe\x00"), (BREACH,)),
    Case("deep nesting", frames(TEXT, b"[" * 100_000), (NO_CALL,)),
    Case("no JSON, again and again", again_and_again, (NO_CALL,), links=4, rate=8),
    Case("unknown method", frames(TEXT, UNKNOWN_METHOD, 20), (r"unknown method",), links=1),
    Case(
        "wrong arguments", frames(TEXT, WRONG_ARGUMENTS, 20), (r"message that cannot be",), links=1
    ),
    Case("no arguments", frames(TEXT, NO_ARGUMENTS, 20), (r"message that cannot be",), links=1),
    Case(
        "answer to an unknown call", frames(TEXT, UNASKED_ANSWER, 20), (r"is not waiting",), links=1
    ),
    Case("a command of 2 MiB", long_method, (), links=1, rate=1),
    Case("2 MiB of nonsense", frames(TEXT, b"n" * (2 << 20)), (NO_CALL,), rate=2),
    Case("17 MiB", frames(TEXT, b"n" * (17 << 20)), (BREACH,), rate=2),
    Case("garbage", garbage(b"\xff\x00\xde\xad\xbe\xef" * 10), (BREACH,)),
    Case("HTTP on the websocket", garbage(BAD_GATEWAY), (BREACH,)),
    # one answer never comes; the aggregator reads but never answers
    Case("muted", muted, (NO_ANSWER,), noticed_s=10, rate=20),
    Case("one answer missing", one_answer_missing, (NO_ANSWER,), noticed_s=10, rate=20),
    # what is unanswered is the next sample, taken up to 0.3 s later
    Case("one sample unanswered", one_sample_unanswered, (NO_ANSWER,), noticed_s=10.3, rate=20),
    # half-open (either direction or both, or back pressure without end)
    Case("half-open up", half_open(up=True), (NO_ANSWER,), noticed_s=10, rate=20),
    Case("half-open down", half_open(down=True), (NO_ANSWER,), noticed_s=10, rate=20),
    Case("half-open both", half_open(up=True, down=True), (NO_ANSWER,), noticed_s=10, rate=20),
    Case("back pressure", back_pressure, (NO_ANSWER,), noticed_s=10, rate=20),
    # The longest wait by then, and its dial.
    Case("forgotten", forgotten, (NO_ANSWER, STILL_HELD), noticed_s=10, back_s=10, rate=30),
    # a cut with answers outstanding
    Case("cut", moment(lambda scene: scene.proxy.cut()), (BROKE_OFF,)),
    Case("reset", moment(lambda scene: scene.proxy.reset()), (BROKE_OFF,)),
    Case("cut, answers outstanding", cut_with_answers_outstanding, (BROKE_OFF,)),
    Case("cut after 100 bytes up", cut_after(up=100), (BROKE_OFF,)),
    Case("cut after 2,000 bytes up", cut_after(up=2000), (BROKE_OFF,), noticed_s=4),
    Case("cut after 1 byte down", cut_after(down=1), (BROKE_OFF,)),
    Case("cut after 1,000 bytes down", cut_after(down=1000), (BROKE_OFF,), noticed_s=4),
    Case("slow link", slow_link, (), links=1, back_s=4, rate=8),
    Case("slow handler", slow_handler, (), links=1, rate=8),
    # a second failure during the first message after a reconnect
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
    # Error answers
    Case("handler raised", answered_once(em.WebPushNotificationMsg, RAISED), (), links=1),
    Case(
        "engine unknown", answered_once(em.WebPushNotificationMsg, UNKNOWN), ("does not know this",)
    ),
    Case("poison", poison, ("is set aside",), links=1),
    # the aggregator is killed in mid-run and comes back
    Case("killed", killed, (BROKE_OFF, "connection refused"), rate=8),
    # registration refused (secret, version): the wait is then always 10 s
    Case("wrong secret", refused_for_the_secret, (BROKE_OFF, "secret"), back_s=10, rate=20),
    Case("wrong version", refused_for_the_version, (BROKE_OFF, "0.9"), back_s=10, rate=20),
    # a dial that leads to nothing; the wait behind the first is at most 2 s, behind the second 4
    Case("connection refused", refused, (BROKE_OFF, "connection refused"), rate=8),
    Case("black hole", black_holed, (BROKE_OFF, "did not let us in"), rate=20),
    Case(
        "SSH answers",
        another_server(b"SSH-2.0-OpenSSH_9.2\r\n"),
        (BROKE_OFF, "not speak HTTP"),
        rate=8,
    ),
    Case("a proxy answers", another_server(BAD_GATEWAY), (BROKE_OFF, "A proxy answers"), rate=8),
    Case(
        "registration cut",
        dials_cut_after(up=100),
        (BROKE_OFF, "during the regi"),
        back_s=4,
        rate=8,
    ),
    Case("answer cut", dials_cut_after(down=50), (BROKE_OFF, "during the regi"), back_s=4, rate=8),
]
