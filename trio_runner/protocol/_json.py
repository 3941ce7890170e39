"""JSON text, more strictly than the standard library has it."""

import json
from typing import Any

from trio_runner.protocol._errors import DecodeError

_FOUND_MAX_CHARS = 60


def found(value: object) -> str:
    """Return a short description of a decoded JSON value, for an error."""
    match value:
        case dict():
            return "an object"
        case list():
            return "an array"
        case None | bool():
            return json.dumps(value)
        case _:
            text = repr(value)
            return text if len(text) <= _FOUND_MAX_CHARS else f"{text[:_FOUND_MAX_CHARS]}..."


def _refuse_constant(literal: str) -> None:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Return the JSON value of the text, bytes being UTF-8.

    Raises:
        DecodeError: it is no JSON, has NaN or Infinity in it, or is nested too deeply.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise DecodeError("$", "expected JSON, found it nested too deeply") from None
    except ValueError as error:
        start = found(text[:_FOUND_MAX_CHARS])
        raise DecodeError("$", f"expected JSON, found {start} ({error})") from None


def dumps(value: object) -> str:
    """Return the value as compact JSON that can be sent as UTF-8.

    A lone surrogate, which UTF-8 cannot carry, becomes `?`.

    Raises:
        ValueError: a float in it is not finite.
        TypeError: it holds something that JSON does not have.
    """
    text = _ENCODER.encode(value)
    return text if text.isascii() else text.encode(errors="replace").decode()
