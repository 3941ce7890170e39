"""The bit of HTTP that the aggregator stand-in speaks: one request, one answer, or an upgrade."""

from http import HTTPStatus

import h11
import trio
from attrs import evolve, frozen


@frozen
class HttpRequest:
    """A request as it was received; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


async def receive_request(stream: trio.abc.Stream) -> tuple[HttpRequest, bytes] | None:
    """Read one request; return it with all bytes read, or None if the peer leaves before its end.

    Read only the head of an upgrade, since what follows is not HTTP.
    """
    parser = h11.Connection(h11.SERVER)
    request, raw = None, b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some())
            raw += data
            parser.receive_data(data)
        elif isinstance(event, h11.Request):
            request = _head(event)
            if "upgrade" in request.headers:
                return request, raw
        elif isinstance(event, h11.Data) and request is not None:
            request = evolve(request, body=request.body + event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, raw
        else:
            return None


def _head(event: h11.Request) -> HttpRequest:
    headers = {name.decode(): value.decode() for name, value in event.headers}
    path, _, _ = event.target.decode().partition("?")
    return HttpRequest(event.method.decode(), path, headers)


def encode_http(status: int, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
