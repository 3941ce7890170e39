"""One request per connection, in bounded time and memory; h11 reads and writes HTTP.

An ASGI server on Trio would not do. It shields what it sends from cancellation, so that a single
stalled reader can hold up the end of the whole process for as long as it likes.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import h11
import trio
from attrs import frozen

CONNECTION_S = 20
"""How long a connection may take to the last byte of the answer (s), whatever the peer does."""

LINGER_S = 1
"""How long to wait for the peer to close (s), if its request was not read to the end.

Otherwise the answer may get lost."""

CHUNK = 16 * 1024

HEADERS = [
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]


@frozen
class Answer:
    """The answer to a request."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()


Respond = Callable[[str], Answer]
"""Makes the answer to a GET request for a path."""


async def converse(stream: trio.abc.HalfCloseableStream, respond: Respond) -> None:
    """Read one request, answer it, and close; nothing that the peer does raises an error here.

    If cancelled, the connection is closed at once.
    """
    async with stream:
        with trio.move_on_after(CONNECTION_S):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the peer has gone
                await _converse(stream, respond)


async def _converse(stream: trio.abc.HalfCloseableStream, respond: Respond) -> None:
    connection = h11.Connection(h11.SERVER)
    method = "GET"
    try:
        request = await _request(connection, stream)
        if request is None:
            return
        method, answer = request.method.decode("ascii"), _answer(request, respond)
    except h11.RemoteProtocolError as error:
        answer = Answer(error.error_status_hint, "This is not an HTTP request.\n")
    await stream.send_all(_written(connection, answer, with_body=method != "HEAD"))
    if method not in ("GET", "HEAD") or answer.status == 400:
        await _linger(stream)


async def _request(
    connection: h11.Connection, stream: trio.abc.ReceiveStream
) -> h11.Request | None:
    """Return the head of the request, or None if the peer closes first; a body is not read."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(bytes(await stream.receive_some(CHUNK)))


def _answer(request: h11.Request, respond: Respond) -> Answer:
    if request.method not in (b"GET", b"HEAD"):
        text = "Nothing can be changed here: use GET or HEAD.\n"
        return Answer(405, text, headers=[("Allow", "GET, HEAD")])
    return respond(request.target.decode("ascii", "replace").partition("?")[0])


def _written(connection: h11.Connection, answer: Answer, *, with_body: bool) -> bytes:
    body = answer.body.encode()
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(body))),
        *HEADERS,
        *answer.headers,
    ]
    written = connection.send(h11.Response(status_code=answer.status, headers=headers))
    if with_body:
        written += connection.send(h11.Data(data=body))
    return written + connection.send(h11.EndOfMessage())


async def _linger(stream: trio.abc.HalfCloseableStream) -> None:
    """Let the peer read the answer before closing.

    Closing with unread bytes from the peer would reset the connection and could lose the answer.
    """
    await stream.send_eof()
    with trio.move_on_after(LINGER_S):
        while await stream.receive_some(CHUNK):
            pass
