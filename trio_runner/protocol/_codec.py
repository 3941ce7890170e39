"""Messages to JSON objects and back, and JSON objects to text.

The converter is keyed on (`_ns`, `_type`), because there are two classes called `MethodMsg`. A
number that is not finite is `null` on the wire. `null` decodes only where None is allowed: a tag's
infinite value comes back as None, but a message with an infinite `tick_time` is refused.

`encode_body` runs for every sample: cattrs' generated code makes dicts, and C turns them into text.
In steady state this is an eighth of a sample's CPU cost. Each body is encoded exactly once.
"""

import functools
import math
from collections.abc import Callable
from enum import StrEnum
from types import ModuleType
from typing import Any, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.fns import identity
from cattrs.gen import make_dict_unstructure_fn

from trio_runner.protocol import _strict, aggregator_messages, engine_messages, messages
from trio_runner.protocol._errors import DecodeError
from trio_runner.protocol._foreign import body_of, encode_foreign, is_foreign
from trio_runner.protocol._json import dumps, found, loads
from trio_runner.protocol.engine_messages import EngineMessage
from trio_runner.protocol.messages import MessageBase


def _tagged_classes(module: ModuleType) -> dict[tuple[str, str], type[MessageBase]]:
    """Return the message classes that a module defines, by their names on the wire."""
    namespace = f"openpectus.protocol.{module.__name__.rpartition('.')[2]}"
    return {
        (namespace, name): cls
        for name, cls in vars(module).items()
        if attrs.has(cls) and issubclass(cls, MessageBase) and cls.__module__ == module.__name__
    }


_CLASSES = {
    tag: cls
    for module in (messages, engine_messages, aggregator_messages)
    for tag, cls in _tagged_classes(module).items()
}
_TAGS = {cls: tag for tag, cls in _CLASSES.items()}


def _is_message_class(tp: object) -> bool:
    return isinstance(tp, type) and issubclass(tp, MessageBase)


def _class_of(obj: object) -> type[MessageBase]:
    """Return the class that the object's `_ns` and `_type` name. Raises DecodeError."""
    if not isinstance(obj, dict):
        raise DecodeError("$", f"expected an object, found {found(obj)}")
    for name in ("_ns", "_type"):
        if name not in obj:
            raise DecodeError(f"$.{name}", "expected a string, found nothing")
        if not isinstance(obj[name], str):
            raise DecodeError(f"$.{name}", f"expected a string, found {found(obj[name])}")
    tag = obj["_ns"], obj["_type"]
    if tag in _CLASSES:
        return _CLASSES[tag]
    if not any(namespace == obj["_ns"] for namespace, _ in _CLASSES):
        raise DecodeError("$._ns", f"expected a namespace of messages, found {found(obj['_ns'])}")
    raise DecodeError("$._type", f"expected a message of {tag[0]}, found {found(tag[1])}")


def _unstructure_tagged(cls: type[MessageBase], converter: Converter) -> Callable[[Any], Any]:
    if is_foreign(cls):
        return encode_foreign
    fields = make_dict_unstructure_fn(cls, converter)
    namespace, name = _TAGS[cls]

    def unstructure(message: MessageBase) -> dict[str, Any]:
        return {**fields(message), "_type": name, "_ns": namespace}

    return unstructure


def _holds_float(tp: object) -> bool:
    return _strict.is_scalar_union(tp) and float in get_args(tp)


def _is_frozenset(tp: Any) -> bool:
    return get_origin(tp) is frozenset


def _finite(value: object) -> object:
    """Return the value, or None for a float that JSON cannot express."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def configure_converter(converter: Converter) -> None:
    """Teach a cattrs converter the protocol.

    `unstructure(message)` then gives a JSON object with `_type` and `_ns`, and
    `structure(obj, MessageBase)` gives a message of the class that they name.
    """
    _configure_unstructuring(converter, _finite, lambda member: member.value)
    _strict.configure_converter(converter)

    @functools.cache
    def hook_of(cls: Any) -> Callable[[Any, Any], Any]:
        return _strict.class_hook(cls, converter)

    def structure_tagged(obj: object, _: object) -> MessageBase:
        cls: Any = _class_of(obj)
        message: MessageBase = hook_of(cls)(obj, cls)
        return message

    converter.register_structure_hook_func(lambda tp: tp is MessageBase, structure_tagged)


def _configure_unstructuring(
    converter: Converter, number: Callable[[Any], Any], member: Callable[[Any], Any]
) -> None:
    """Teach a converter to make JSON objects; `number` converts floats, `member` enumerations."""
    converter.register_unstructure_hook(float, number)
    converter.register_unstructure_hook_func(_holds_float, number)
    # Register by class: a StrEnum is a str, and the hook for str would leave it unchanged.
    converter.register_unstructure_hook(StrEnum, member)
    converter.register_unstructure_hook_func(_is_frozenset, sorted)
    converter.register_unstructure_hook_factory(_is_message_class, _unstructure_tagged)


def make_converter() -> Converter:
    """Return a new cattrs converter that knows the protocol."""
    converter = Converter()
    configure_converter(converter)
    return converter


_CONVERTER = make_converter()

NOT_IN_BODY = ("engine_id", "sequence_number")
"""The fields that are not known until a message is sent."""

_TO_TEXT = Converter()
"""For objects that go to `dumps` next, which itself writes floats and StrEnums correctly."""
_configure_unstructuring(_TO_TEXT, identity, identity)


def encode(message: MessageBase) -> dict[str, Any]:
    """Return a message as a JSON object with `_type` and `_ns`."""
    obj: dict[str, Any] = _CONVERTER.unstructure(message)
    return obj


def decode(obj: object) -> MessageBase:
    """Return the message that a JSON object holds.

    Raises:
        DecodeError: it is not a message, or a field is missing or of another type.
    """
    try:
        return _CONVERTER.structure(obj, MessageBase)
    except (BaseValidationError, _strict.Mismatch) as error:
        raise _strict.refusal(error) from None


def encode_json(message: MessageBase) -> str:
    """Return a message as compact JSON text."""
    return dumps(encode(message))


def decode_json(text: str | bytes) -> MessageBase:
    """Return the message that a JSON text holds; bytes must be UTF-8.

    Raises:
        DecodeError: it is not JSON, or not a message, or a field is missing or of another type.
    """
    return decode(loads(text))


def encode_body(message: EngineMessage) -> str:
    """Return a message as JSON text without `engine_id` and `sequence_number`.

    This text waits to be sent; the frame around it (`encode_dispatch`) then adds these two.
    """
    body = body_of(message)
    if body is not None:
        return body
    obj = _TO_TEXT.unstructure(message)
    for name in NOT_IN_BODY:
        obj.pop(name, None)
    return dumps(obj)
