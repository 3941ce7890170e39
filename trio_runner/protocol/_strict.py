"""cattrs hooks that convert nothing, and the translation of cattrs' errors into paths.

A string never passes for a number here, nor true for an integer. A field of type float takes an
integer, because JSON does not tell 1 from 1.0; it stays an int, so that it can go out again as it
came. Unknown fields are ignored, since the aggregator may be newer.
"""

import json
import math
from collections.abc import Callable
from enum import StrEnum
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    IterableValidationNote,
)
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from trio_runner.protocol._errors import DecodeError
from trio_runner.protocol._json import found

Hook = Callable[[Any, Any], Any]

_SCALARS: dict[Any, str] = {
    float: "a number",
    int: "an integer",
    str: "a string",
    bool: "true or false",
    NoneType: "null",
}


class Mismatch(Exception):
    """A value does not have the type of its field."""

    def __init__(self, tp: object, value: object) -> None:
        super().__init__(f"expected {describe(tp)}, found {found(value)}")


def is_scalar_union(tp: object) -> bool:
    """Return whether a type is a union of only str, int, float, bool and None."""
    return _is_union(tp) and all(member in _SCALARS for member in get_args(tp))


def describe(tp: object) -> str:
    """Return what JSON must hold for a type, for an error."""
    if _is_union(tp):
        members = get_args(tp)
        hidden = int if float in members else None
        return " or ".join(describe(member) for member in members if member is not hidden)
    if get_origin(tp) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(tp))
    if isinstance(tp, type) and issubclass(tp, StrEnum):
        return "one of " + ", ".join(json.dumps(member.value) for member in tp)
    if get_origin(tp) in (list, frozenset):
        return "an array"
    return _SCALARS.get(tp, "an object")


def configure_converter(converter: Converter) -> None:
    """Make a converter structure values without converting any."""
    for scalar in (str, int, float, bool):
        converter.register_structure_hook(scalar, _scalar_hook(scalar))
    converter.register_structure_hook_factory(is_scalar_union, _scalar_hook)
    # Register by class: a StrEnum is a str, and the hook for str would take it.
    converter.register_structure_hook(StrEnum, _structure_enum)
    converter.register_structure_hook_func(_has_origin(Literal), _structure_literal)
    converter.register_structure_hook_factory(_has_origin(list), _list_hook)
    converter.register_structure_hook_factory(_has_origin(frozenset), _frozenset_hook)
    converter.register_structure_hook_factory(_has_origin(dict), _dict_hook)
    converter.register_structure_hook_factory(attrs.has, class_hook)


def refusal(error: BaseException) -> DecodeError:
    """Translate cattrs' error into one with the path of the first thing that is wrong."""
    path, tp = "$", None
    while isinstance(error, BaseValidationError):
        error = error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                path, tp = path + _step(note.name), note.type
            elif isinstance(note, IterableValidationNote):
                path, tp = path + _step(note.index), note.type
    if isinstance(error, KeyError):
        return DecodeError(path, f"expected {describe(tp)}, found nothing")
    return DecodeError(path, str(error))


def _step(key: int | str) -> str:
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    return f"[{json.dumps(key)}]"


def _is_union(tp: object) -> bool:
    return get_origin(tp) in (Union, UnionType)


def _has_origin(origin: object) -> Callable[[Any], bool]:
    return lambda tp: get_origin(tp) is origin


def _scalar_hook(tp: Any) -> Hook:
    accepted = set(get_args(tp) or (tp,))
    if float in accepted:
        accepted.add(int)

    def structure(value: object, _: object) -> object:
        # Compare the class itself, because bool is a subclass of int.
        if value.__class__ in accepted and _is_sound(value):
            return value
        raise Mismatch(tp, value)

    return structure


def _is_sound(value: object) -> bool:
    """Return whether a scalar can be sent on: not an infinite float, not a lone surrogate."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str) and not value.isascii():
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return True


def _structure_enum(value: object, tp: type[StrEnum]) -> StrEnum:
    if value.__class__ is str:
        for member in tp:
            if member.value == value:
                return member
    raise Mismatch(tp, value)


def _structure_literal(value: object, tp: object) -> object:
    if value.__class__ is str and value in get_args(tp):
        return value
    raise Mismatch(tp, value)


def _only(json_type: type, tp: object, inner: Hook) -> Hook:
    """Return a hook that takes one JSON type only; cattrs itself would iterate over a string."""

    def structure(value: object, _: object) -> object:
        if value.__class__ is json_type:
            return inner(value, tp)
        raise Mismatch(tp, value)

    return structure


def _list_hook(tp: Any, converter: Converter) -> Hook:
    return _only(list, tp, list_structure_factory(tp, converter))


def _frozenset_hook(tp: Any, converter: Converter) -> Hook:
    as_list = GenericAlias(list, get_args(tp))
    members = converter.get_structure_hook(as_list)
    return lambda value, _: frozenset(members(value, as_list))


def _dict_hook(tp: Any, converter: Converter) -> Hook:
    return _only(dict, tp, mapping_structure_factory(tp, converter))


def class_hook(tp: Any, converter: Converter) -> Hook:
    """Return the hook that structures an attrs class from a JSON object."""
    return _only(dict, tp, make_dict_structure_fn(tp, converter))
