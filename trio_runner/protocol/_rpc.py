"""Calls and answers of both sides as text frames of JSON, without I/O.

A frame is put around a message's text without parsing it. An answer's result is left as text,
because the session has nearly always seen the same text before.
"""

import math
from typing import Any

from attrs import frozen

from trio_runner.protocol._errors import DecodeError
from trio_runner.protocol._json import dumps, found, loads

PING = "_ping_"
"""The method that answers `"pong"`."""

GET_ENGINE_ID = "get_engine_id_async"
"""The method by which the aggregator asks for the engine's id, a string."""

DISPATCH = "dispatch_message_async"
"""The method that takes a message (`message_json`) and answers with a message as JSON text."""


CALL_ID_CHARS_MAX = 200
"""The longest id of a call that we read (characters), since our answer repeats it; 32 is usual."""


@frozen
class Request:
    """A call; its answer carries the same `call_id`, even if that is None."""

    method: str
    arguments: dict[str, Any]
    call_id: str | None


@frozen
class Response:
    """An answer; `result_type` is the name of the result's Python type, which nothing relies on."""

    result: object
    result_type: str | None
    call_id: str | None


def encode_request(request: Request) -> str:
    """Return the frame of a call, whose arguments must be JSON values."""
    fields = {
        "method": request.method,
        "arguments": request.arguments,
        "call_id": request.call_id,
    }
    return dumps({"request": fields, "response": None})


def encode_response(response: Response) -> str:
    """Return the frame of an answer, whose result must be a JSON value."""
    fields = {
        "result": response.result,
        "result_type": response.result_type,
        "call_id": response.call_id,
    }
    return dumps({"request": None, "response": fields})


def encode_dispatch(call_id: str, engine_id: str, sequence_number: int, body: str) -> str:
    """Return the frame that dispatches an engine message already encoded by `encode_body`.

    So the same body can go out again on another link, in another call, without being encoded again.

    Raises:
        ValueError: `body` is not the text of a JSON object with at least one field.
    """
    if not body.startswith('{"'):
        raise ValueError(f"expected the text of a JSON object, found {found(body)}")
    head, tail = frame_around(call_id, engine_id, sequence_number)
    return f"{head}{body[1:]}{tail}"


def frame_around(call_id: str, engine_id: str, sequence_number: int) -> tuple[str, str]:
    """Return what a dispatch frame has before and after the message's own fields."""
    head = (
        f'{{"request":{{"method":"{DISPATCH}","arguments":{{"message_json":{{'
        f'"sequence_number":{sequence_number},"engine_id":{dumps(engine_id)},'
    )
    return head, f'}},"call_id":{dumps(call_id)}}},"response":null}}'


def decode_frame(text: str | bytes, values_max: float = math.inf) -> Request | Response:
    """Return the call or the answer that a frame holds; a field that is null may be left out.

    Raises:
        DecodeError: it holds neither or both, has a field of another type or an id of more than
            `CALL_ID_CHARS_MAX` characters, or is refused by `loads`: it is not JSON, is nested too
            deeply, or may hold more values than `values_max`.
    """
    frame = _object(loads(text, values_max), "$")
    request, response = frame.get("request"), frame.get("response")
    if request is not None and response is not None:
        raise DecodeError("$", "expected a request or a response, found both")
    if request is not None:
        return _request(_object(request, "$.request"))
    if response is not None:
        return _response(_object(response, "$.response"))
    raise DecodeError("$", "expected a request or a response, found neither")


def _request(fields: dict[str, Any]) -> Request:
    path = "$.request"
    arguments = fields.get("arguments")
    if "method" not in fields:
        raise DecodeError(f"{path}.method", "expected a string, found nothing")
    return Request(
        method=_string(fields["method"], f"{path}.method"),
        arguments=_object(arguments, f"{path}.arguments") if arguments is not None else {},
        call_id=_call_id(fields, path),
    )


def _response(fields: dict[str, Any]) -> Response:
    path = "$.response"
    result_type = fields.get("result_type")
    return Response(
        result=fields.get("result"),
        result_type=_string(result_type, f"{path}.result_type")
        if result_type is not None
        else None,
        call_id=_call_id(fields, path),
    )


def _call_id(fields: dict[str, Any], path: str) -> str | None:
    if fields.get("call_id") is None:
        return None
    call_id = _string(fields["call_id"], f"{path}.call_id")
    if len(call_id) > CALL_ID_CHARS_MAX:
        raise DecodeError(
            f"{path}.call_id",
            f"expected {CALL_ID_CHARS_MAX} characters at most, found {len(call_id)}",
        )
    return call_id


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(path, f"expected an object, found {found(value)}")
    return value


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(path, f"expected a string, found {found(value)}")
    return value
