"""From the package's messages to ours, without loss and without knowing what is in them."""

import json
from typing import Any, TypeVar

from openpectus.protocol.serialization import serialize
from pydantic_core import to_json

from trio_runner.protocol import MessageBase, foreign

M = TypeVar("M", bound=MessageBase)


def to_object(message: Any) -> dict[str, Any]:
    """Return the JSON object that the package itself sends for a message of its own."""
    # What its `serialize` gives is no JSON yet: there are sets in it, enumerations, infinity.
    text = to_json(serialize(message), inf_nan_mode="null")
    obj: dict[str, Any] = json.loads(text)
    return obj


def to_ours(message: Any, kind: type[M]) -> M:
    """Return a message of the package's as one that is delivered as a `kind`."""
    return foreign(to_object(message), kind)
