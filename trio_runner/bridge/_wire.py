"""From the package's messages to ours, without loss and without knowing what is in them."""

import json
from typing import Any, TypeVar

from openpectus.protocol.serialization import serialize
from pydantic_core import to_json

from trio_runner.protocol import NOT_IN_BODY, MessageBase, foreign
from trio_runner.protocol import engine_messages as em

M = TypeVar("M", bound=MessageBase)

_ends: dict[type, str | None] = {}
"""How the text of each class ends, None where pydantic does not write what the package sends."""


def to_object(message: Any) -> dict[str, Any]:
    """Return the JSON object that the package itself sends for a message of its own."""
    # What its `serialize` gives is no JSON yet: there are sets in it, enumerations, infinity.
    text = to_json(serialize(message), inf_nan_mode="null")
    obj: dict[str, Any] = json.loads(text)
    return obj


def to_ours(message: Any, kind: type[M]) -> M:
    """Return a message of the package's as one that is delivered as a `kind`.

    Its attributes are those of the package's message.
    """
    body = to_body(message) if issubclass(kind, em.EngineMessage) else None
    if body is None:
        return foreign(to_object(message), kind)
    return foreign(dict(vars(message)), kind, body=body)


def to_body(message: Any) -> str | None:
    """Return the text of an engine message as `encode_body` gives it, written by pydantic itself.

    It takes a sixth of the time of `to_object`, whose word is the law: the first message of each
    class is written both ways, and of a class whose texts differ, as a newer package's may, it is
    None.
    """
    cls = type(message)
    if cls in _ends and _ends[cls] is None:
        return None
    fields: str = message.model_dump_json(exclude=set(NOT_IN_BODY))
    if cls not in _ends:
        _ends[cls] = _end(message, fields)
    end = _ends[cls]
    return None if end is None else fields[:-1] + end


def _end(message: Any, fields: str) -> str | None:
    expected = to_object(message)
    tags = json.dumps({name: expected[name] for name in ("_type", "_ns")}, separators=(",", ":"))
    end = f",{tags[1:]}"
    for name in NOT_IN_BODY:
        expected.pop(name, None)
    # As texts, so that neither 1.0 passes for 1 nor another order for the same.
    is_same = json.dumps(json.loads(fields[:-1] + end)) == json.dumps(expected)
    return end if is_same else None
