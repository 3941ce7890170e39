"""Frames and bytes that no aggregator would send."""

from tests.faults.cases.case import BREACH, Case, Fault
from tests.faults.proxy import BINARY, TEXT
from tests.faults.scene import Scene
from trio_runner.protocol import DISPATCH, Request, Response, encode_request, encode_response
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl

CALL_ID = "ab" * 16

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
"""The reply of a web proxy when the aggregator behind the proxy does not answer."""

UNKNOWN_METHOD = encode_request(Request("sing_async", {"song": "any"}, CALL_ID)).encode()
WRONG_ARGUMENTS = encode_request(Request(DISPATCH, {"message_json": [1]}, CALL_ID)).encode()
NO_ARGUMENTS = encode_request(Request(DISPATCH, {}, CALL_ID)).encode()
UNASKED_ANSWER = encode_response(Response("pong", "str", CALL_ID)).encode()
NO_CALL = r"sent a frame that is not a remote call"


def garbage(data: bytes) -> Fault:
    """Send bytes that are not a websocket frame."""

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
    """Give a command of 2 MiB, which must work like any other."""
    content = "a" * (2 << 20)
    method = mdl.Method(version=1, lines=[mdl.MethodLine(id="1", content=content)])
    engine_id = scene.aggregator.engine().engine_id
    answer = await scene.aggregator.call(engine_id, am.MethodMsg(method=method))
    assert isinstance(answer, m.SuccessMessage)
    assert scene.unit.method == method


CASES = [
    # A frame that is no JSON ..., or garbage below the websocket.
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
        "answer to an unknown call",
        frames(TEXT, UNASKED_ANSWER, 20),
        (r"does not wait for one",),
        links=1,
    ),
    Case("a command of 2 MiB", long_method, (), links=1, rate=1),
    Case("2 MiB of nonsense", frames(TEXT, b"n" * (2 << 20)), (NO_CALL,), rate=2),
    Case("17 MiB", frames(TEXT, b"n" * (17 << 20)), (BREACH,), rate=2),
    Case("garbage", garbage(b"\xff\x00\xde\xad\xbe\xef" * 10), (BREACH,)),
    Case("HTTP on the websocket", garbage(BAD_GATEWAY), (BREACH,)),
]
