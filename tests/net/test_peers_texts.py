"""A peer's texts in the log and in errors: short, on one line, and not remembered for ever."""

import json
import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
import wsproto.events as ws
from trio.testing import MockClock

from tests.helpers.unit import Unit
from tests.net.peer import BODY, Peer, Script, linked, scripted
from trio_runner import CommandError, DialError, EngineDispatcher, Timing
from trio_runner.net._session import RpcSession
from trio_runner.protocol import (
    DISPATCH,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    encode_json,
)
from trio_runner.protocol import aggregator_messages as am

FORGED = "\n2026-01-01 ERROR forged \x1b[2J\u202e"
EVIL = FORGED + "x" * 60_000

LINE_CHARS_MAX = 450
"""Room for a text of 200 characters, where it came from, and what to do."""


async def unknown_method(peer: Peer) -> None:
    """Call a method that does not exist."""
    await peer.call(EVIL, {}, "1")


async def answer_to_nothing(peer: Peer) -> None:
    """Answer a call that was not made."""
    await peer.answer(Request("", {}, FORGED + "x" * 100))


async def unknown_message(peer: Peer) -> None:
    """Send a message of an unknown type."""
    await peer.call(DISPATCH, {"message_json": {"_ns": EVIL, "_type": EVIL}}, "1")


async def odd_command(peer: Peer) -> None:
    """Give a command that the engine refuses with its name."""
    await peer.dispatch(am.ExecuteControlCommandMsg(name=EVIL), "1")


async def no_frame(peer: Peer) -> None:
    """Send a frame that is not a call."""
    await peer.send_text(json.dumps({"request": EVIL}))


async def reason(peer: Peer) -> None:
    """Close with a reason."""
    await peer.send_event(ws.CloseConnection(code=1011, reason=FORGED + "x" * 80))


async def error_answer(peer: Peer) -> None:
    """Answer a message with an error."""
    error = ProtocolErrorMessage(message=EVIL, exception_message=EVIL, protocol_msg=EVIL)
    await peer.answer(await peer.request(), encode_json(error))


async def odd_answer(peer: Peer) -> None:
    """Answer with something that is not a message."""
    await peer.answer(await peer.request(), EVIL)


async def answer_nested_deeply(peer: Peer) -> None:
    """Answer with something that nests more deeply than Python prints."""
    call_id = (await peer.request()).call_id
    nested = "[" * 900 + "]" * 900
    await peer.send_text(f'{{"response":{{"result":{nested},"call_id":"{call_id}"}}}}')


def check(texts: list[str]) -> None:
    """Check that each text is short and on one line."""
    assert texts
    for text in texts:
        assert text.isprintable(), text
        assert len(text) <= LINE_CHARS_MAX, text


class Refusing(Unit):
    """A unit that quotes each command that it refuses."""

    async def execute_control_command(self, name: str) -> None:
        raise CommandError(f"There is no command {name}")


@pytest.mark.parametrize(
    "say",
    [
        unknown_method,
        answer_to_nothing,
        unknown_message,
        odd_command,
        no_frame,
        reason,
        error_answer,
        odd_answer,
        answer_nested_deeply,
    ],
)
async def test_a_text_of_the_peer_is_cut_and_printable(
    say: Callable[[Peer], Awaitable[None]],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the peer says is shown on one line, with at most 200 characters."""
    caplog.set_level(logging.INFO, "trio_runner")
    told: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.open()
        await say(peer)
        await peer.listen()

    def answered(answer: MessageBase) -> None:
        assert isinstance(answer, ErrorMessage)
        texts = (answer.message, answer.exception_message, getattr(answer, "protocol_msg", None))
        told.extend(text for text in texts if text is not None)

    async with linked(script, unit=Refusing()) as link:
        link.session.send(1, BODY, answered)
        await trio.testing.wait_all_tasks_blocked()
        failure = link.failure
    check(told + caplog.messages + ([str(failure)] if failure else []))


@pytest.mark.parametrize(
    "reply",
    [
        am.RegisterEngineReplyMsg(success=False, version_match=False, aggregator_build_number=EVIL),
        am.RegisterEngineReplyMsg(success=False, engine_id=EVIL),
    ],
)
async def test_the_reply_to_a_registration_is_cut_and_printable(
    reply: am.RegisterEngineReplyMsg, autojump_clock: MockClock
) -> None:
    """In errors, the build number and the engine id are cut and printable."""

    async def script(peer: Peer) -> None:
        await peer.reply(200, encode_json(reply))

    async with trio.open_nursery() as peers:
        dispatcher = EngineDispatcher(
            "aggregator.example", handlers=Unit(), open_stream=scripted(peers, script)
        )
        with pytest.raises(DialError) as raised:
            await dispatcher.dial(Unit().create_register_engine_msg(), Timing())
    check([str(raised.value)])


def nagging(say: Callable[[Peer, int], Awaitable[None]]) -> Script:
    """Return the script of a peer that says a thousand different things."""

    async def script(peer: Peer) -> None:
        await peer.open()
        for number in range(1000):
            await say(peer, number)
        await peer.listen()

    return script


async def call_another(peer: Peer, number: int) -> None:
    """Call a new unknown method."""
    await peer.call(f"method {number}", {}, "1")
    await peer.response()


async def send_another(peer: Peer, number: int) -> None:
    """Send a new message that cannot be read."""
    await peer.call(DISPATCH, {"message_json": {"_ns": f"{number}", "_type": ""}}, "1")
    await peer.response()


@pytest.mark.parametrize(("say", "lines"), [(call_another, 1), (send_another, 99)])
async def test_what_was_said_is_remembered_within_bounds(
    say: Callable[[Peer, int], Awaitable[None]],
    lines: int,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A peer with a new text each time fills neither the log nor memory.

    Of the 100 things that a dispatcher remembers, one is where it registers.
    """
    async with linked(nagging(say)) as link:
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(link.session, RpcSession)
        assert len(link.session._say._said) <= 100
    assert len(caplog.messages) == lines
