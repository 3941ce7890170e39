"""All classes of the protocol, found by introspection, and strategies for their instances."""

from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from hypothesis import strategies as st

from trio_runner.protocol import aggregator_messages, engine_messages, messages, models

MODULES = (messages, engine_messages, aggregator_messages, models)

CLASSES: list[Any] = [
    cls
    for module in MODULES
    for cls in vars(module).values()
    if attrs.has(cls) and cls.__module__ == module.__name__
]

MESSAGE_CLASSES: list[Any] = [cls for cls in CLASSES if issubclass(cls, messages.MessageBase)]

ENUMS: list[type[StrEnum]] = [
    cls
    for cls in vars(models).values()
    if isinstance(cls, type) and issubclass(cls, StrEnum) and cls is not StrEnum
]


def name_of(cls: Any) -> str:
    """Return `module.Class`, for a test's id: two classes are called MethodMsg."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def instances(cls: Any, *, finite: bool = True) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of the class, with every field drawn."""
    return st.builds(cls, **{a.name: _values(a.type, finite=finite) for a in attrs.fields(cls)})


def _values(tp: Any, *, finite: bool) -> st.SearchStrategy[Any]:
    arguments: tuple[Any, ...] = get_args(tp)
    match get_origin(tp):
        case origin if origin in (Union, UnionType):
            return st.one_of([_values(member, finite=finite) for member in arguments])
        case origin if origin is Literal:
            return st.sampled_from(arguments)
        case origin if origin is list:
            return st.lists(_values(arguments[0], finite=finite), max_size=2)
        case origin if origin is frozenset:
            return st.frozensets(_values(arguments[0], finite=finite), max_size=3)
        case origin if origin is dict:
            key, value = (_values(member, finite=finite) for member in arguments)
            return st.dictionaries(key, value, max_size=2)
    if attrs.has(tp):
        return instances(tp, finite=finite)
    if issubclass(tp, StrEnum):
        return st.sampled_from(list(tp))
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        float: st.floats(allow_nan=not finite, allow_infinity=not finite),
        int: st.integers(),
        str: st.text(max_size=8),
        bool: st.booleans(),
        NoneType: st.none(),
    }
    return scalars[tp]
