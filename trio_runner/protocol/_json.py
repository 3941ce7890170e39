"""JSON text: read more strictly than the standard library does, written by orjson.

With `json`, writing was a tenth of a sample's cost; orjson needs a twelfth of the time of `json`.
"""

import json
import math
from typing import Any

import orjson

from trio_runner.protocol._errors import DecodeError

_FOUND_MAX_CHARS = 60

NESTING_MAX = 100
"""How deeply the arrays and objects that we read may be nested; no message needs more than 8.

Python's own limit differs between versions, and what it lets through may crash later code."""


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
_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""Refuse dataclasses and datetimes, which JSON does not have.

orjson still writes enumerations and UUIDs."""
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes, values_max: float = math.inf) -> Any:
    """Return the JSON value of a text; bytes must be UTF-8.

    Raises:
        DecodeError: it is not JSON, contains NaN or Infinity, is nested more deeply than
            `NESTING_MAX`, or may hold more than `values_max` values. The count is an upper bound,
            because it includes the commas in strings.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        # Each value but the outermost follows one of these three. A short text holds few of them.
        if len(text) > values_max and sum(map(text.count, ",[{")) > values_max:
            raise DecodeError("$", f"expected {values_max} values at most, found more")
        value = _DECODER.decode(text)
    except RecursionError:
        raise DecodeError("$", "expected JSON, found it nested too deeply") from None
    except ValueError as error:
        start = found(text[:_FOUND_MAX_CHARS])
        raise DecodeError("$", f"expected JSON, found {start} ({error})") from None
    if text.count("[") + text.count("{") > NESTING_MAX and _depth(value) > NESTING_MAX:
        raise DecodeError("$", f"expected JSON, found it nested more than {NESTING_MAX} deep")
    return value


def _depth(value: object) -> int:
    """Return how deeply a value is nested, but look at most one level beyond `NESTING_MAX`."""
    depth, level = 0, [value]
    while level and depth <= NESTING_MAX:
        inner: list[object] = []
        for outer in level:
            if isinstance(outer, dict):
                inner += outer.values()
            elif isinstance(outer, list):
                inner += outer
        depth += any(isinstance(outer, dict | list) for outer in level)
        level = inner
    return depth


def dumps(value: object) -> str:
    """Return a value as compact JSON that can be sent as UTF-8.

    A lone surrogate, which UTF-8 cannot carry, becomes `?`. A float that is not finite becomes
    null.

    Raises:
        TypeError: it holds something that JSON does not have; the message says where.
    """
    try:
        return orjson.dumps(value, option=_STRICT).decode()
    except TypeError:
        # orjson refuses lone surrogates and integers of more than 64 bits, which are valid in JSON.
        misfit = _misfit(value)
        if misfit is not None:
            raise TypeError(misfit) from None
        return _ENCODER.encode(_finite(value)).encode(errors="replace").decode()


def _misfit(value: object, path: str = "$") -> str | None:
    """Return what in a value JSON does not have, and where; None if there is no such thing."""
    if isinstance(value, dict):
        inner = {f"{path}.{key}": item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        inner = {f"{path}[{number}]": item for number, item in enumerate(value)}
    else:
        is_json = value is None or isinstance(value, str | int | float)
        what = f"{path} is of the type {type(value).__name__}, which JSON does not have"
        return None if is_json else what
    return next(filter(None, (_misfit(item, where) for where, item in inner.items())), None)


def _finite(value: object) -> object:
    """Return a value with None for each float that is not finite, as orjson would write it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
