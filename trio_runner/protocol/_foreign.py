"""Messages that another implementation has made and serialised, and that go out unchanged.

A package of another version may put fields and values into its messages that are not known here;
they are kept. The rest of the program sees a message of a class that it knows. This class decides
how the message is delivered, and the fields that matter for that can be read and changed.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from trio_runner.protocol._json import loads
from trio_runner.protocol.messages import MessageBase

M = TypeVar("M", bound=MessageBase)


def foreign(obj: Mapping[str, Any], kind: type[M], *, body: str | None = None) -> M:
    """Return a message that passes for a `kind` and encodes to the JSON object `obj`.

    Its attributes are the plain values in `obj` instead of the models that a `kind` has; they are
    None where `obj` has no value. An attribute changed with `attrs.evolve` goes out changed.

    `body` is the text that `encode_body` is to return. If it is given, the message encodes to that,
    and the values in `obj` may be the other implementation's own objects.
    """
    hashable: Any = kind
    message: M = _foreign_class(hashable)(
        **{name: obj.get(name) for name in _known(hashable)}, source=obj, body=body
    )
    return message


def kind_of(message: M) -> type[M]:
    """Return the class of this project that a message has or passes for."""
    cls: Any = type(message)
    kind: type[M] = cls.__bases__[0] if is_foreign(cls) else cls
    return kind


def is_foreign(cls: type) -> bool:
    """Tell whether `foreign` made the class."""
    return cls.__dict__.get("_is_foreign", False) is True


def encode_foreign(message: Any) -> dict[str, Any]:
    """Return the JSON object of a foreign message."""
    obj = message._source if message._body is None else loads(message._body)
    return {**obj, **_changed(message)}


def body_of(message: Any) -> str | None:
    """Return the text that a message was made with, None if it has none or was changed since."""
    if not is_foreign(type(message)) or _changed(message):
        return None
    body: str | None = message._body
    return body


def _changed(message: Any) -> dict[str, Any]:
    """Return the fields that were changed since the message was made."""
    source: Mapping[str, Any] = message._source
    hashable: Any = kind_of(message)
    now = {name: getattr(message, name) for name in _known(hashable) if name in source}
    return {name: value for name, value in now.items() if value is not source[name]}


@functools.cache
def _known(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in attrs.fields(kind))


@functools.cache
def _foreign_class(kind: type[MessageBase]) -> Any:
    cls: Any = attrs.make_class(
        f"Foreign{kind.__name__}",
        {"_source": attrs.field(repr=False), "_body": attrs.field(repr=False)},
        bases=(kind,),
        class_body={"_is_foreign": True},
        frozen=True,
        kw_only=True,
    )
    return cls
