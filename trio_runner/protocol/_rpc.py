"""Calls and answers of either side, as text frames of JSON; nothing here does I/O.

A frame is put around a message's text without a look at it; an answer's result is left as text, of
which the session has nearly always seen the same before.
"""

from typing import Any

from attrs import frozen

from trio_runner.protocol._errors import DecodeError
from trio_runner.protocol._json import dumps, found, loads

PING = "_ping_"
"""Method that answers `"pong"`."""

GET_ENGINE_ID = "get_engine_id_async"
"""Method by which the aggregator asks for the engine's id, a string."""

DISPATCH = "dispatch_message_async"
"""Method that takes a message (`message_json`) and answers with a string: the JSON of a message."""


@frozen
class Request:
    """A call; its answer carries the same `call_id`."""

    method: str
    arguments: dict[str, Any]
    call_id: str


@frozen
class Response:
    """An answer; `result_type` is the name of the result's Python type, which nothing relies on."""

    result: object
    result_type: str | None
    call_id: str


def encode_request(request: Request) -> str:
    """Return the frame of a call; the arguments are JSON values."""
    fields = {
        "method": request.method,
        "arguments": request.arguments,
        "call_id": request.call_id,
    }
    return dumps({"request": fields, "response": None})


def encode_response(response: Response) -> str:
    """Return the frame of an answer; the result is a JSON value."""
    fields = {
        "result": response.result,
        "result_type": response.result_type,
        "call_id": response.call_id,
    }
    return dumps({"request": None, "response": fields})


def encode_dispatch(call_id: str, engine_id: str, sequence_number: int, body: str) -> str:
    """Return the frame that dispatches an engine message already encoded by `encode_body`.

    The same body goes out again on another link, under another call, without being encoded anew.

    Raises:
        ValueError: `body` is not the text of a JSON object with at least one field.
    """
    if not body.startswith('{"'):
        raise ValueError(f"expected the text of a JSON object, found {found(body)}")
    head, tail = frame_around(call_id, engine_id, sequence_number)
    return f"{head}{body[1:]}{tail}"


def frame_around(call_id: str, engine_id: str, sequence_number: int) -> tuple[str, str]:
    """Return what a frame of a dispatch has before and behind the message's own fields."""
    head = (
        f'{{"request":{{"method":"{DISPATCH}","arguments":{{"message_json":{{'
        f'"sequence_number":{sequence_number},"engine_id":{dumps(engine_id)},'
    )
    return head, f'}},"call_id":{dumps(call_id)}}},"response":null}}'


def decode_frame(text: str | bytes) -> Request | Response:
    """Return the call or the answer that a frame holds.

    Raises:
        DecodeError: it holds neither, or both, or is not JSON, or is nested too deeply.
    """
    frame = _object(loads(text), "$")
    request, response = _member(frame, "request", "$"), _member(frame, "response", "$")
    if request is not None and response is not None:
        raise DecodeError("$", "expected a request or a response, found both")
    if request is not None:
        return _request(_object(request, "$.request"))
    if response is not None:
        return _response(_object(response, "$.response"))
    raise DecodeError("$", "expected a request or a response, found neither")


def _request(fields: dict[str, Any]) -> Request:
    path = "$.request"
    return Request(
        method=_string(fields, "method", path),
        arguments=_object(_member(fields, "arguments", path), f"{path}.arguments"),
        call_id=_string(fields, "call_id", path),
    )


def _response(fields: dict[str, Any]) -> Response:
    path = "$.response"
    has_type = _member(fields, "result_type", path) is not None
    return Response(
        result=_member(fields, "result", path),
        result_type=_string(fields, "result_type", path) if has_type else None,
        call_id=_string(fields, "call_id", path),
    )


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(path, f"expected an object, found {found(value)}")
    return value


def _member(fields: dict[str, Any], name: str, path: str) -> object:
    if name not in fields:
        raise DecodeError(f"{path}.{name}", "expected a value, found nothing")
    return fields[name]


def _string(fields: dict[str, Any], name: str, path: str) -> str:
    value = _member(fields, name, path)
    if not isinstance(value, str):
        raise DecodeError(f"{path}.{name}", f"expected a string, found {found(value)}")
    return value
