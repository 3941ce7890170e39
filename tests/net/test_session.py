"""A link while it lives and when it ends: calls both ways, deadlines, closes, faults."""

import logging
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import wsproto.events as ws
from trio.testing import MockClock, lockstep_stream_pair

from tests.helpers.unit import Unit
from tests.net.peer import BODY, Peer, PeerGone, Script, linked, register, scripted
from trio_runner import CommandError, LinkLost, Timing
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    Response,
    SuccessMessage,
    decode_json,
    encode,
    encode_json,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

Behaviour = Callable[[Peer], Awaitable[None]]


def opened(behaviour: Behaviour) -> Script:
    """Return a script that opens the link and then follows this behaviour."""

    async def script(peer: Peer) -> None:
        await peer.open()
        await behaviour(peer)

    return script


async def listen(peer: Peer) -> None:
    """Behaviour: read, and answer nothing but websocket pings."""
    await peer.listen()


async def deaf(peer: Peer) -> None:
    """Behaviour: read, but answer nothing, not even websocket pings."""
    peer.answers_pings = False
    await peer.listen()


# Our calls


async def test_sends_are_pipelined(autojump_clock: MockClock) -> None:
    """Everything goes out at once and in order; answers are passed on in the order they arrive."""
    requests: list[Request] = []
    told: list[tuple[int, str]] = []

    async def behave(peer: Peer) -> None:
        requests.extend([await peer.request() for _ in range(3)])
        for number in (2, 0, 1):
            reply = ErrorMessage(message=f"answer {number}")
            await peer.answer(requests[number], encode_json(reply))
        await peer.listen()

    async with linked(opened(behave)) as link:
        for number in range(3):

            def answered(answer: MessageBase, number: int = number) -> None:
                assert isinstance(answer, ErrorMessage)
                told.append((number, answer.message or ""))

            link.session.send(7 + number, BODY, answered)
        await trio.testing.wait_all_tasks_blocked()
    assert [request.method for request in requests] == [DISPATCH] * 3
    messages = [request.arguments["message_json"] for request in requests]
    assert [message["sequence_number"] for message in messages] == [7, 8, 9]
    assert {message["engine_id"] for message in messages} == {"host_Unit"}
    assert told == [(2, "answer 2"), (0, "answer 0"), (1, "answer 1")]


async def test_an_unknown_answer_is_ignored(autojump_clock: MockClock) -> None:
    """An answer to no call, or a second one, does nothing."""
    told: list[MessageBase] = []

    async def behave(peer: Peer) -> None:
        request = await peer.request()
        await peer.answer(Request("", {}, "f" * 32))
        await peer.answer(request)
        await peer.answer(request)
        await peer.listen()

    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, told.append)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [SuccessMessage()]
        assert not link.ended.is_set()


@pytest.mark.parametrize("result", [None, 1, {}, "", "pong", "[]", '{"_type":"Nonsense"}'])
async def test_an_answer_that_is_no_message_ends_the_link(
    result: object, autojump_clock: MockClock
) -> None:
    """As with a missing answer, we cannot know whether the message has arrived."""
    told: list[MessageBase] = []

    async def behave(peer: Peer) -> None:
        await peer.answer(await peer.request(), result)
        await peer.listen()

    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, told.append)
        failure = await link.lost()
    assert told == []
    assert "answered with something that is not a message" in str(failure)


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("disk full"), KeyError("bug")])
async def test_a_bug_in_a_callback_is_raised_unchanged(
    error: Exception, autojump_clock: MockClock
) -> None:
    """An error that a callback raises is not turned into a network error."""

    async def behave(peer: Peer) -> None:
        await peer.answer(await peer.request())
        await peer.listen()

    def answered(_: MessageBase) -> None:
        raise error

    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, answered)
        assert await link.lost() is error
        assert error.__cause__ is None


async def test_a_callback_may_end_the_link(autojump_clock: MockClock) -> None:
    """A NetworkError from a callback is what the dial raises."""
    lost = LinkLost("not registered")

    async def behave(peer: Peer) -> None:
        await peer.answer(await peer.request())
        await peer.listen()

    def answered(_: MessageBase) -> None:
        raise lost

    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, answered)
        assert await link.lost() is lost


async def test_patience_applies_to_pongs_too(autojump_clock: MockClock) -> None:
    """An aggregator whose event loop stands still while it handles a message gets 3 times 10 s."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await trio.sleep_forever()  # it does not read pings either

    start = trio.current_time()
    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, lambda _: None, patience=3)
        failure = await link.lost()
        assert link.ended_s - start == 30
        assert str(failure) == "The aggregator did not answer a message within 30 s."


async def test_the_call_after_a_patient_one_has_its_time_from_that_answer(
    autojump_clock: MockClock,
) -> None:
    """The aggregator takes one call after another, so the next one's 10 s begin at the answer."""

    async def behave(peer: Peer) -> None:
        first, second = await peer.request(), await peer.request()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            await trio.sleep(25)
            await peer.answer(first)
            await trio.sleep(9)
            await peer.answer(second)

    told: list[float] = []
    start = trio.current_time()
    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, lambda _: told.append(trio.current_time() - start), patience=3)
        link.session.send(2, BODY, lambda _: told.append(trio.current_time() - start))
        await trio.sleep(60)
        assert not link.ended.is_set()
    assert told == [25, 34]


async def test_patience_ends_with_its_call(autojump_clock: MockClock) -> None:
    """A message that may take 80 s is answered at 15 s; the next, sent at 16 s, has 10 s."""

    async def behave(peer: Peer) -> None:
        first = await peer.request()
        await trio.sleep_until(start + 15)
        await peer.answer(first)
        await peer.listen()

    start = trio.current_time()
    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, lambda _: None, patience=8)
        await trio.sleep(16)
        link.session.send(2, BODY, lambda _: None)
        await link.lost()
        assert link.ended_s - start == 26


async def test_an_unanswered_call_ends_the_link_after_ten_seconds(
    autojump_clock: MockClock,
) -> None:
    """The link is lost 10 s after the oldest unanswered call was sent."""

    async def behave(peer: Peer) -> None:
        first = await peer.request()
        await peer.request()
        await trio.sleep_until(start + 9)
        await peer.answer(first)
        await peer.listen()

    start = trio.current_time()
    async with linked(opened(behave)) as link:
        link.session.send(1, BODY, lambda _: None)
        await trio.sleep(4)
        link.session.send(2, BODY, lambda _: None)
        failure = await link.lost()
        assert link.ended_s - start == 14  # the first was answered at 9 s, the second sent at 4 s
    assert type(failure) is LinkLost
    assert str(failure) == "The aggregator did not answer a message within 10 s."


async def test_an_answer_may_come_at_the_moment_of_the_deadline(autojump_clock: MockClock) -> None:
    """If the clock leaps over the deadline at any step, the link may end, but without a bug."""
    for leap in range(1, 40):

        async def behave(peer: Peer, leap: int = leap) -> None:
            await peer.answer(await peer.request())
            await peer.listen()

        async with linked(opened(behave)) as link:
            step = LeapBefore(leap, autojump_clock)
            link.session.send(1, BODY, lambda _: None)
            trio.lowlevel.add_instrument(step)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(step)
            assert link.failure is None or type(link.failure) is LinkLost


@attrs.define(eq=False)
class LeapBefore(trio.abc.Instrument):
    """An instrument that lets 10 s pass before the n-th step of any task."""

    n: int
    clock: MockClock

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.n -= 1
        if self.n == 0:
            self.clock.jump(10)


# Keepalive


async def test_an_idle_link_is_pinged_every_five_seconds(autojump_clock: MockClock) -> None:
    """An idle link is pinged every 5 s and lives."""
    peers: list[Peer] = []

    async def behave(peer: Peer) -> None:
        peers.append(peer)
        await peer.listen()

    start = trio.current_time()
    async with linked(opened(behave)) as link:
        await trio.sleep(21)
        assert not link.ended.is_set()
    assert [ping - start for ping in peers[0].pings] == [5, 10, 15, 20]


async def test_a_missing_pong_is_noticed_at_ten_seconds(autojump_clock: MockClock) -> None:
    """When a peer goes silent, it takes 5 s to the ping and 5 s for the pong."""
    start = trio.current_time()
    async with linked(opened(deaf)) as link:
        failure = await link.lost()
        assert link.ended_s - start == 10
    assert type(failure) is LinkLost
    assert str(failure) == "The aggregator did not answer a ping within 5 s."


async def test_a_peer_that_stops_reading_is_noticed(autojump_clock: MockClock) -> None:
    """A stream that takes no more bytes holds up nothing: the link is lost after 10 s."""
    streams: list[tuple[trio.abc.Stream, trio.abc.Stream]] = [
        trio.testing.memory_stream_pair(),
        lockstep_stream_pair(),
    ]
    remaining = list(streams)

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return remaining.pop(0)[0]

    async def play() -> None:
        await register(Peer(streams[0][1]))
        await Peer(streams[1][1]).open()

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        async with linked(open_stream=open_stream) as link:
            for number in range(5):
                link.session.send(number, BODY, lambda _: None)
            failure = await link.lost()
            assert type(failure) is LinkLost
            assert link.ended_s - start == 10


# The aggregator's calls


@pytest.mark.parametrize("message", ["x", "", "[]", "null", '{"request":null,"response":null}'])
async def test_a_frame_that_is_no_call_ends_the_link(
    message: str, autojump_clock: MockClock
) -> None:
    """A peer that sends something other than a remote call cannot be trusted any further."""
    await ends_with(ws.TextMessage(data=message))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
async def test_a_frame_nested_too_deeply_ends_the_link(
    opening: str, autojump_clock: MockClock
) -> None:
    """A bomb of brackets does not look like our bug."""
    await ends_with(ws.TextMessage(data=opening * 100_000))


async def test_a_binary_frame_ends_the_link(autojump_clock: MockClock) -> None:
    """Calls must be text."""
    await ends_with(ws.BytesMessage(data=b"\x00\xff"))


async def ends_with(event: ws.Event) -> None:
    """Send an event, and check that it costs the link."""

    async def behave(peer: Peer) -> None:
        await peer.send_event(event)
        await peer.listen()

    async with linked(opened(behave)) as link:
        failure = await link.lost()
    assert type(failure) is LinkLost
    assert "sent a frame that is not a remote call: $" in str(failure)


async def answers_to(
    *calls: tuple[str, dict[str, object]], unit: Unit | None = None
) -> list[tuple[str, object, float]]:
    """Make all calls at once; return the id, the result and the time (s) of each answer in order.

    The link must live on.
    """
    answers: list[tuple[str, object, float]] = []

    async def behave(peer: Peer) -> None:
        start = trio.current_time()
        for number, (method, arguments) in enumerate(calls):
            await peer.call(method, arguments, str(number))
        while len(answers) < len(calls):
            response = await peer.response()
            assert response.result_type == "str"
            answers.append((str(response.call_id), response.result, trio.current_time() - start))
        done.set()
        await peer.listen()

    done = trio.Event()
    async with linked(opened(behave), unit=unit) as link:
        with trio.fail_after(3):
            await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not link.ended.is_set()
    return answers


def dispatch(message: MessageBase) -> tuple[str, dict[str, object]]:
    """Return the call that dispatches a message."""
    return DISPATCH, {"message_json": encode(message)}


async def reply_to(message: MessageBase, unit: Unit) -> MessageBase:
    """Dispatch a message and return the engine's reply."""
    ((_, result, _),) = await answers_to(dispatch(message), unit=unit)
    assert isinstance(result, str)
    return decode_json(result)


async def test_pings_and_questions_are_answered(autojump_clock: MockClock) -> None:
    """The aggregator may ask for a pong and for the id as often as it likes."""
    answers = await answers_to((PING, {}), (GET_ENGINE_ID, {}), (PING, {}))
    assert sorted(answers) == [("0", "pong", 0), ("1", "host_Unit", 0), ("2", "pong", 0)]


async def test_a_call_may_leave_out_keys_that_are_null(autojump_clock: MockClock) -> None:
    """Keys that are null may be missing; the call is carried out, and its answer has no id."""
    heard: list[Response] = []

    async def behave(peer: Peer) -> None:
        await peer.send_text('{"request":{"method":"get_engine_id_async"}}')
        heard.append(await peer.response())
        await peer.send_text('{"response":{"result":"of no call"}}')
        await peer.listen()

    async with linked(opened(behave)) as link:
        await trio.testing.wait_all_tasks_blocked()
        assert not link.ended.is_set()
    assert heard == [Response("host_Unit", "str", None)]


async def test_an_unknown_method_is_answered(autojump_clock: MockClock) -> None:
    """The answer is a ProtocolErrorMessage that names the method."""
    ((_, result, _),) = await answers_to(("fly", {}))
    assert decode_json(str(result)) == ProtocolErrorMessage(protocol_msg="Unknown method 'fly'")


@pytest.mark.parametrize(
    "arguments", [{}, {"message_json": None}, {"message_json": {}}, {"message": {}}]
)
async def test_wrong_arguments_are_answered(
    arguments: dict[str, object], autojump_clock: MockClock
) -> None:
    """A dispatch without a message gets a ProtocolErrorMessage."""
    ((_, result, _),) = await answers_to((DISPATCH, arguments))
    answer = decode_json(str(result))
    assert isinstance(answer, ProtocolErrorMessage)
    assert "The message cannot be read: $" in (answer.protocol_msg or "")


async def test_a_message_that_is_no_command_is_answered(autojump_clock: MockClock) -> None:
    """A message that an engine does not handle gets a ProtocolErrorMessage."""
    assert await reply_to(SuccessMessage(), Unit()) == ProtocolErrorMessage(
        protocol_msg="An engine does not handle SuccessMessage"
    )


METHOD = mdl.Method(version=0, lines=[mdl.MethodLine(id="1", content="Mark: A")])


@pytest.mark.parametrize(
    ("message", "handled", "logged"),
    [
        (am.ExecuteControlCommandMsg(name="Start"), ("control", "Start"), "control: Start"),
        (am.InjectCodeMsg(pcode="A\x1b\nB"), ("inject", "A\x1b\nB"), r"inject_code: A\x1b\nB"),
        (am.InjectCodeMsg(pcode="A" * 500), ("inject", "A" * 500), f"inject_code: {'A' * 197}..."),
        (am.MethodMsg(method=METHOD), ("method", METHOD), "set_method: 1 line"),
        (am.CancelMsg(exec_id="1"), ("cancel", "1"), "cancel: 1"),
        (am.ForceMsg(exec_id="2"), ("force", "2"), "force: 2"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_commands_reach_their_handlers(
    message: MessageBase,
    handled: tuple[str, object],
    logged: str,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of the five is passed on, logged on one short line, and answered."""
    caplog.set_level(logging.INFO, "trio_runner")
    unit = Unit()
    assert await reply_to(message, unit) == SuccessMessage()
    assert unit.commands == [handled]
    name, _, what = logged.partition(":")
    assert f"Incomming {name} command from aggregator:{what}" in caplog.messages


@pytest.mark.parametrize("caller_error", [True, False])
async def test_a_command_that_cannot_be_done_is_answered_with_the_reason(
    caller_error: bool, autojump_clock: MockClock
) -> None:
    """A CommandError is answered with its text and with whose mistake it is."""

    async def refuse(_: str) -> None:
        raise CommandError("The valve is stuck", caller_error=caller_error)

    reply = await reply_to(am.CancelMsg(exec_id="1"), Unit(on_command=refuse))
    assert reply == ErrorMessage(message="The valve is stuck", caller_error=caller_error)


class Broken(Unit):
    """An engine with a handler that fails before there is anything to await."""

    def force(self, exec_id: str) -> Awaitable[None]:  # type: ignore[override]
        raise LookupError("no such instruction")


@pytest.mark.parametrize("in_task", [True, False])
async def test_a_handler_that_fails_is_answered_and_logged(
    in_task: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a handler is answered, and logged with its traceback; the link lives."""

    async def fail(_: str) -> None:
        raise LookupError("no such instruction")

    unit = Unit(on_command=fail) if in_task else Broken()
    assert await reply_to(am.ForceMsg(exec_id="1"), unit) == ErrorMessage(
        message="The engine failed to carry out the force command",
        exception_message="no such instruction",
    )
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


async def test_a_handler_that_never_returns_is_answered_for_after_1_5_s(
    autojump_clock: MockClock,
) -> None:
    """A handler that never returns is cancelled and answered for at 1.5 s; nothing waits for it."""
    cancelled: list[float] = []

    async def hang(name: str) -> None:
        if name == "force":
            return
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time() - start)

    start = trio.current_time()
    answers = await answers_to(
        dispatch(am.CancelMsg(exec_id="1")),
        dispatch(am.ForceMsg(exec_id="1")),
        (GET_ENGINE_ID, {}),
        unit=Unit(on_command=hang),
    )
    assert sorted((call_id, at) for call_id, _, at in answers) == [("0", 1.5), ("1", 0), ("2", 0)]
    assert decode_json(str(answers[-1][1])) == ErrorMessage(
        message="The engine did not carry this out within 1.5 s"
    )
    assert cancelled == [1.5]


@pytest.mark.parametrize(("calls", "lost"), [(64, False), (65, True)])
async def test_the_number_of_unwritten_answers_is_bounded(
    calls: int, lost: bool, autojump_clock: MockClock
) -> None:
    """64 answers may wait for a peer that does not read; one more cuts the link.

    A command that was answered before does not count.
    """
    streams: list[tuple[trio.abc.Stream, trio.abc.Stream]] = [
        trio.testing.memory_stream_pair(),
        lockstep_stream_pair(),
    ]
    remaining = list(streams)

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return remaining.pop(0)[0]

    async def play() -> None:
        await register(Peer(streams[0][1]))
        peer = Peer(streams[1][1])
        await peer.open()
        await peer.call(*dispatch(am.CancelMsg(exec_id="1")), "done")
        await peer.response()
        for number in range(calls + 1):  # one more is being written
            await peer.call(GET_ENGINE_ID, {}, str(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        async with linked(open_stream=open_stream) as link:
            await trio.testing.wait_all_tasks_blocked()
            is_lost = link.ended.is_set()
        nursery.cancel_scope.cancel()
    assert is_lost is lost
    if lost:
        assert (
            str(link.failure)
            == "The aggregator has made more than 64 calls that are not answered yet."
        )
        assert type(link.failure) is LinkLost


# Ends


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012])
async def test_a_close_by_the_aggregator_is_a_lost_link(
    code: int, autojump_clock: MockClock
) -> None:
    """Every close is reported as a lost link with its code, and we answer it."""

    async def behave(peer: Peer) -> None:
        await peer.send_event(ws.CloseConnection(code=code, reason="why"))
        with pytest.raises(PeerGone):
            await peer.listen()
        assert peer.close_code == code

    async with linked(opened(behave)) as link:
        failure = await link.lost()
    assert type(failure) is LinkLost
    assert str(failure) == f"The aggregator closed the connection with code {code}: why."


@pytest.mark.parametrize("rest", [b"", b"\x81", b"\x81\x7e\x01\x00half"])
async def test_a_connection_that_breaks_off_is_a_lost_link(
    rest: bytes, autojump_clock: MockClock
) -> None:
    """A stream that ends without a close, even in mid-frame, is a lost link."""

    async def behave(peer: Peer) -> None:
        await peer.send_raw(rest)

    async with linked(opened(behave)) as link:
        failure = await link.lost()
    assert type(failure) is LinkLost
    assert str(failure) == "The connection to the aggregator broke off."


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x81\x02\xff\xff", b"\x88\x02\x00\x01"])
async def test_bytes_that_break_the_websocket_end_the_link(
    data: bytes, autojump_clock: MockClock
) -> None:
    """Bytes that are not a frame, not UTF-8 or not a close code cost the link."""

    async def behave(peer: Peer) -> None:
        await peer.send_raw(data)
        await trio.sleep_forever()

    async with linked(opened(behave)) as link:
        assert type(await link.lost()) is LinkLost


async def closes(peer: Peer) -> None:
    """Behaviour: listen, and answer our close."""
    with pytest.raises(PeerGone):
        await peer.listen()
    await peer.answer_close()


async def test_an_orderly_close_has_code_1000_and_takes_no_time(autojump_clock: MockClock) -> None:
    """The peer sees code 1000, and the dial returns without an error and without delay."""
    peers: list[Peer] = []

    async def behave(peer: Peer) -> None:
        peers.append(peer)
        await closes(peer)

    start = trio.current_time()
    async with linked(opened(behave)) as link:
        await link.session.aclose()
        assert await link.lost() is None
        assert trio.current_time() == start
    assert peers[0].close_code == 1000


async def test_a_close_that_is_not_answered_takes_a_second(autojump_clock: MockClock) -> None:
    """A peer that does not answer the close gets 1 s, and that is no error."""

    async def ignore_close(peer: Peer) -> None:
        with pytest.raises(PeerGone):
            await peer.listen()
        await trio.sleep_forever()

    start = trio.current_time()
    async with linked(opened(ignore_close)) as link:
        await link.session.aclose()
        assert await link.lost() is None
        assert trio.current_time() - start == 1


async def test_a_ping_after_our_close_is_no_error(autojump_clock: MockClock) -> None:
    """A peer that pings before it has seen our close causes no error."""

    async def ping_late(peer: Peer) -> None:
        with pytest.raises(PeerGone):
            await peer.listen()
        await peer.send_raw(b"\x89\x00")
        await peer.answer_close()

    async with linked(opened(ping_late)) as link:
        await link.session.aclose()
        assert await link.lost() is None


async def test_what_falls_due_during_a_close_is_no_error(autojump_clock: MockClock) -> None:
    """A ping or a deadline that is due within the second of the close causes no error."""

    async def ignore_close(peer: Peer) -> None:
        with pytest.raises(PeerGone):
            await peer.listen()
        await trio.sleep_forever()

    async with linked(opened(ignore_close), timing=Timing(call_s=5, ping_s=5)) as link:
        link.session.send(1, BODY, lambda _: None)
        await trio.sleep(4.5)
        await link.session.aclose()  # the ping and the call's deadline are due 0.5 s into it
        assert await link.lost() is None


async def test_an_answer_during_a_close_is_no_error(autojump_clock: MockClock) -> None:
    """A handler that ends while we close causes no error, and the peer still sees code 1000."""
    peers: list[Peer] = []

    async def behave(peer: Peer) -> None:
        peers.append(peer)
        await peer.dispatch(am.CancelMsg(exec_id="1"), "0")
        with pytest.raises(PeerGone):
            await peer.listen()
        await trio.sleep(0.9)
        await peer.answer_close()

    async def take_a_while(_: str) -> None:
        await trio.sleep(0.5)

    start = trio.current_time()
    async with linked(opened(behave), unit=Unit(on_command=take_a_while)) as link:
        await trio.testing.wait_all_tasks_blocked()
        await link.session.aclose()
        assert await link.lost() is None
        assert trio.current_time() - start == 0.9  # when the peer answered, not cut at 0.5 s
    assert peers[0].close_code == 1000


async def test_an_abort_ends_the_link_at_once(autojump_clock: MockClock) -> None:
    """An abort ends the dial without an error; later sends go nowhere and do no harm."""
    start = trio.current_time()
    async with linked(opened(listen)) as link:
        link.session.abort()
        assert await link.lost() is None
        assert trio.current_time() == start
        link.session.send(1, BODY, lambda _: None)
        await link.session.aclose()


async def test_cancelling_a_close_cuts_the_link_at_once(autojump_clock: MockClock) -> None:
    """Cancelling a close cuts the link at that moment."""

    async def ignore_close(peer: Peer) -> None:
        with pytest.raises(PeerGone):
            await peer.listen()
        await trio.sleep_forever()

    start = trio.current_time()
    async with linked(opened(ignore_close)) as link:
        with trio.move_on_after(0.25):
            await link.session.aclose()
        assert await link.lost() is None
        assert trio.current_time() - start == 0.25


async def test_a_started_link_is_shielded_from_cancellation(autojump_clock: MockClock) -> None:
    """A link that is cancelled from outside still carries messages until it is aborted."""
    told: list[MessageBase] = []

    async def behave(peer: Peer) -> None:
        await peer.answer(await peer.request())
        await peer.listen()

    async with trio.open_nursery() as peers:
        open_stream = scripted(peers, register, opened(behave))
        with trio.CancelScope() as scope:
            async with linked(open_stream=open_stream) as link:
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                    link.session.send(1, BODY, told.append)
                    await trio.testing.wait_all_tasks_blocked()
                    assert told == [SuccessMessage()]
                    assert not link.ended.is_set()
                    link.session.abort()
                    assert await link.lost() is None
        peers.cancel_scope.cancel()


async def test_the_stand_in_calls_the_engine_and_restarts(autojump_clock: MockClock) -> None:
    """With the stand-in: a command arrives, its refusal comes back, a restart closes with 1012."""
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        async with linked(open_stream=aggregator.in_memory(nursery)) as link:
            await aggregator.wait_until(lambda: aggregator.engines)
            message = am.ExecuteControlCommandMsg(name="Nonsense")
            assert await aggregator.call("host_Unit", message) == ErrorMessage(
                message="There is no command Nonsense", caller_error=True
            )
            await aggregator.restart()
            assert "closed the connection with code 1012" in str(await link.lost())
        nursery.cancel_scope.cancel()
