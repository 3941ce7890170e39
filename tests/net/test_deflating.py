"""Compression over a websocket library that has none: cut at every byte, and end to end.

The other end uses wsproto's own permessage-deflate, which is not part of this project.
"""

import zlib
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair
from wsproto.extensions import PerMessageDeflate

from tests.net.peer import BODY, SUCCESS, Peer, linked
from tests.net.test_session import opened
from trio_runner import LinkLost
from trio_runner.net._deflating import FRAGMENTS_MAX, HEAD_MAX, Deflater, Deflating, Inflater
from trio_runner.protocol import DISPATCH, MessageBase, Request, SuccessMessage, decode_json
from trio_runner.protocol import aggregator_messages as am

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
ACCEPTED = b"Sec-WebSocket-Extensions: permessage-deflate"


def frame(first: int, payload: bytes) -> bytes:
    """Return a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    head = b"\x7e" + size.to_bytes(2, "big") if size < 2**16 else b"\x7f" + size.to_bytes(8, "big")
    return bytes([first]) + head + payload


# Compressed texts, one of them in two pieces with a ping between, and one that is not compressed;
# payloads that look like heads; sizes on either side of those at which a head grows.
SENT = [
    (0xC1, b"\xc1\x7e\xc1"),
    (0x41, b"\x41" * 125),
    (0x89, b"ping"),
    (0x80, b"\xc1" * 126),
    (0x81, b"not compressed"),
    (0xC1, b"\xc1" * (2**16 - 1)),
    (0xC1, b"\xc1" * 2**16),
    (0xC1, b""),
    (0x88, b"\x03\xe8"),
]
PASSED = {0xC1: 0x82, 0x41: 0x02}


async def passed(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return what a server's bytes in pieces become, and whether compression was accepted."""
    stream = Deflating(_Pieces(pieces))
    received = b""
    while data := await stream.receive_some():
        received += data
    return received, stream.is_on


class _Pieces(trio.abc.Stream):
    """A stream that yields these pieces one at a time, then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0) if self._pieces else b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(1, 400))
def test_frames_are_the_same_wherever_the_bytes_are_cut(cuts: list[int], every: int) -> None:
    """The acceptance is removed, compressed texts become messages of bytes, and all else stays."""
    sent = ANSWER + ACCEPTED + b"\r\n\r\n" + b"".join(frame(*each) for each in SENT)
    expected = (
        ANSWER
        + b"\r\n"
        + b"".join(frame(PASSED.get(first, first), payload) for first, payload in SENT)
    )
    # Cut in the answer and the small frames, and in the heads of the large ones after them.
    heads = [len(sent) - 2**16 - offset for offset in range(-4, 24)]
    places = sorted({0, *cuts, *range(0, 1000, every), *heads[:: every % 5 + 1], len(sent)})
    pieces = [sent[a:b] for a, b in pairwise(places)]
    assert trio.run(passed, pieces) == (expected, True)


@pytest.mark.parametrize(
    "line",
    [
        ACCEPTED + b"; server_no_context_takeover; client_no_context_takeover",
        ACCEPTED + b"; server_max_window_bits=12",
        ACCEPTED.lower() + b" ",
    ],
)
async def test_every_acceptance_that_can_be_obeyed_is_taken(line: bytes) -> None:
    head = ANSWER + line + b"\r\nServer: it\r\n\r\n"
    assert await passed([head]) == (ANSWER + b"Server: it\r\n\r\n", True)


@pytest.mark.parametrize(
    "line",
    [
        # It would have to be offered and obeyed, but messages are packed with a 32 kB window.
        ACCEPTED + b"; client_max_window_bits=9",
        ACCEPTED + b"\r\n ; client_max_window_bits=9",  # the same, with a folded line
        ACCEPTED + b"; server_max_window_bits=99",
        ACCEPTED + b"\r\n" + ACCEPTED,
        b"Sec-WebSocket-Extensions: x-webkit-deflate-frame",
        b"X-Server: it",
    ],
)
async def test_any_other_answer_is_handed_on_unchanged(line: bytes) -> None:
    """What follows it is handed on too."""
    sent = ANSWER + line + b"\r\n\r\n" + frame(0xC1, b"x")
    assert await passed([sent]) == (sent, False)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 403 Forbidden\r\n" + ACCEPTED + b"\r\n\r\nA",
        b"HTTP/1.1 404 Not Found\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 " + b"x" * HEAD_MAX,
        b"HTTP/1.1 101 It\r\n" + ACCEPTED + b"\r\nX: " + b"x" * HEAD_MAX,
    ],
)
async def test_what_is_no_acceptance_is_handed_on_at_once(sent: bytes) -> None:
    """The layer above reports it, and must not have to wait for its end."""
    stream = Deflating(_Pieces([sent]))
    assert await stream.receive_some() == sent
    assert not stream.is_on


async def test_a_long_answer_and_one_with_bare_line_ends_are_understood() -> None:
    """h11 takes both."""
    cookie = b"Set-Cookie: " + b"x" * 20_000 + b"\r\n"
    sent = ANSWER + cookie + ACCEPTED + b"\r\n\r\n" + frame(0xC1, b"x")
    assert await passed([sent[:16_384], sent[16_384:]]) == (
        ANSWER + cookie + b"\r\n" + frame(0x82, b"x"),
        True,
    )
    bare = (ANSWER + ACCEPTED + b"\r\n\r\n").replace(b"\r", b"")
    assert await passed([bare]) == ((ANSWER + b"\r\n").replace(b"\r", b""), True)


async def test_bytes_that_are_held_back_are_handed_on_at_the_end() -> None:
    for sent in (ANSWER, ANSWER + ACCEPTED + b"\r\n\r\n\xc1"):
        received, _ = await passed([sent])
        assert received == sent.replace(ACCEPTED + b"\r\n", b"")


# End to end


def deflated(behave: Callable[[Peer], Awaitable[None]]) -> Callable[[Peer], Awaitable[None]]:
    """Return a script that accepts compression, opens the link and then follows this behaviour."""

    async def script(peer: Peer) -> None:
        await peer.open([PerMessageDeflate()])
        await behave(peer)

    return script


async def test_messages_answers_and_calls_are_sent_compressed(autojump_clock: MockClock) -> None:
    """Packed messages are sent as they are; the other side's calls and answers are understood."""
    told: list[MessageBase] = []
    requests: list[Request] = []

    async def behave(peer: Peer) -> None:
        for _ in range(3):
            requests.append(await peer.request())
            await peer.answer(requests[-1])
        await peer.dispatch(am.ExecuteControlCommandMsg(name="Pause"), "1")
        response = await peer.response()
        assert decode_json(str(response.result)) == SuccessMessage()
        await peer.listen()

    async with linked(deflated(behave)) as link:
        for number in range(3):
            link.session.send(number, BODY, told.append)
        await trio.testing.wait_all_tasks_blocked()
        assert not link.ended.is_set()
        assert link.unit.commands == [("control", "Pause")]
    assert told == [SuccessMessage()] * 3
    assert [request.method for request in requests] == [DISPATCH] * 3
    numbers = [request.arguments["message_json"]["sequence_number"] for request in requests]
    assert numbers == [0, 1, 2]


async def test_a_text_that_is_not_compressed_is_understood_too(autojump_clock: MockClock) -> None:
    """The extension lets the sender choose for each message."""
    told: list[MessageBase] = []

    async def behave(peer: Peer) -> None:
        request = await peer.request()
        text = b'{"request":null,"response":{"result":%s,"result_type":"str","call_id":"%s"}}'
        result = SUCCESS.replace('"', '\\"').encode()
        await peer.send_raw(
            frame(0x81, text % (b'"' + result + b'"', str(request.call_id).encode()))
        )
        await peer.listen()

    async with linked(deflated(behave)) as link:
        link.session.send(1, BODY, told.append)
        await trio.testing.wait_all_tasks_blocked()
    assert told == [SuccessMessage()]


BOMB = zlib.compressobj(9, wbits=-15)
ARRAYS = b"[[]%s]" % (b",[]" * (16 * 2**20 // 3))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xff\xff\xff", "invalid"),
        (
            (BOMB.compress(ARRAYS) + BOMB.flush(zlib.Z_SYNC_FLUSH))[:-4],
            "bytes inflate to more than 4194304",
        ),
        (Deflater().message("[[]" + ",[]" * 1_000_000 + "]"), "expected 250000 values at most"),
    ],
)
async def test_what_cannot_be_inflated_ends_the_link(
    payload: bytes, why: str, autojump_clock: MockClock
) -> None:
    """Nonsense, or 16 MiB of JSON in 16 kB: the memory and time that it takes are bounded."""

    async def behave(peer: Peer) -> None:
        await peer.send_raw(frame(0xC1, payload))
        await peer.listen()

    async with linked(deflated(behave)) as link:
        failure = await link.lost()
    assert isinstance(failure, LinkLost)
    assert why in str(failure)


@pytest.mark.parametrize("deflates", [False, True])
async def test_a_message_in_endless_pieces_ends_the_link(
    deflates: bool, autojump_clock: MockClock
) -> None:
    """8,192 empty pieces are taken, with pings between them, and no more."""

    async def behave(peer: Peer) -> None:
        await peer.send_raw(frame(0x01, b"") + frame(0x00, b"") * (FRAGMENTS_MAX - 2))
        await peer.send_raw(frame(0x89, b"ping") * 10)
        await peer.send_raw(frame(0x80, b'{"request":{"method":"_ping_"}}'))
        pong.append((await peer.response()).result)
        await peer.send_raw(frame(0x01, b"") + frame(0x00, b"") * FRAGMENTS_MAX)
        await peer.listen()

    pong: list[object] = []
    async with linked(deflated(behave) if deflates else opened(behave)) as link:
        failure = await link.lost()
    assert pong == ["pong"]
    assert isinstance(failure, LinkLost)
    assert str(failure) == "The aggregator sent a message in more than 8192 pieces."


async def test_the_clients_half_inflates_what_the_servers_half_compresses() -> None:
    """The client's half inflates what the server's half compresses, up to a bound."""
    deflater, inflater = Deflater(), Inflater(100)
    texts = ["a" * 100, "", "ä" * 50, "a" * 100]
    assert [inflater.text(deflater.message(text)) for text in texts] == texts
    with pytest.raises(ValueError, match="bytes inflate to more than 100"):
        inflater.text(deflater.message("b" * 101))
    # The message is so small that all of it has been read when the bound is reached.
    with pytest.raises(ValueError, match="bytes inflate to more than 100"):
        Inflater(100).text(Deflater().message("c" * 101))


async def test_the_server_gets_what_the_client_sends(autojump_clock: MockClock) -> None:
    """A message of bytes leaves as a compressed text; texts and pings leave unchanged."""
    ours, theirs = memory_stream_pair()
    client, server = Deflating(ours, is_on=True), Deflating(theirs, is_on=True)
    for first, arrives in ((0x82, 0x82), (0x81, 0x81), (0x89, 0x89)):
        masked = bytes([first, 0x83]) + b"mask" + b"abc"
        await client.send_all(masked)
        assert await server.receive_some() == bytes([arrives]) + masked[1:]
    await client.send_all(b"\x82\x80mask")
    assert await theirs.receive_some() == b"\xc1\x80mask"
    # Two at once, since the place where the second begins depends on the first.
    await ours.send_all(b"\xc1\x81maskc" + b"\xc1\x80mask")
    assert await server.receive_some() == b"\x82\x81maskc" + b"\x82\x80mask"


async def test_a_sender_may_end_its_stream_with_a_message() -> None:
    """RFC 7692, 7.2.3.4 allows a block that is marked as the last."""
    inflater = Inflater(100)
    for text in ("one", "two"):
        last = zlib.compressobj(wbits=-15)
        assert inflater.text(last.compress(text.encode()) + last.flush() + b"\x00") == text
