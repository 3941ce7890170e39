"""Turn the package's messages into ours, without loss and without knowing their contents."""

import json
from typing import Any, TypeVar

from openpectus.protocol.serialization import serialize
from pydantic_core import to_json

from trio_runner.protocol import NOT_IN_BODY, MessageBase, foreign
from trio_runner.protocol import engine_messages as em

M = TypeVar("M", bound=MessageBase)

_ends: dict[type, str | None] = {}
"""How the text of each class ends; None if pydantic does not write what the package sends."""


def to_object(message: Any) -> dict[str, Any]:
    """Return the JSON object that the package itself would send for its message."""
    # The result of its `serialize` is not yet JSON: it has sets, enumerations and infinity in it.
    text = to_json(serialize(message), inf_nan_mode="null")
    obj: dict[str, Any] = json.loads(text)
    return obj


def to_ours(message: Any, kind: type[M]) -> M:
    """Return a message of the package as one of ours that passes for a `kind`.

    Its attributes are those of the package's message or, if `to_body` returns None, plain values.
    """
    body = to_body(message) if issubclass(kind, em.EngineMessage) else None
    if body is None:
        return foreign(to_object(message), kind)
    return foreign(dict(vars(message)), kind, body=body)


def to_body(message: Any) -> str | None:
    """Return the text of an engine message as `encode_body` would, written by pydantic itself.

    This takes a sixth of the time of `to_object`, which is authoritative. The first message of each
    class is written both ways. If the two texts differ, as they may with a newer package, return
    None for that class from then on.
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
    # Compare texts, so that 1.0 does not pass for 1 and another order is not taken for the same.
    is_same = json.dumps(json.loads(fields[:-1] + end)) == json.dumps(expected)
    return end if is_same else None
