"""Parses P-code: lines into a tree, arguments into quantities and conditions.

Parsing lines never fails, because people save methods that are half written. A line keeps its
error, which comes up when the line is to be carried out.
"""

import operator
import re
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl

_INDENT = 4
_SCOPE_NAMES = frozenset({"Block", "Watch"})

_UNITS: dict[str, tuple[str, float]] = {
    "s": ("time", 1),
    "min": ("time", 60),
    "h": ("time", 3600),
    "L/h": ("flow", 1),
    "L/min": ("flow", 60),
    "L/d": ("flow", 1 / 24),
    "bar": ("pressure", 1),
    "Pa": ("pressure", 1e-5),
    "kg": ("mass", 1),
    "g": ("mass", 1e-3),
    "mS/cm": ("conductivity", 1),
    "µS/cm": ("conductivity", 1e-3),
    "%": ("percentage", 1),
}
"""Each unit's quantity, and its size in that quantity's first unit."""

_NUMBER = r"-?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)"
_QUANTITY = re.compile(rf"({_NUMBER})(?: ?(\S+))?")
_CONDITION = re.compile(r"([^<>=!]+?)\s*(<=|>=|==|!=|<|>|=)\s*([^<>=!]+)")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}

TagReading = tuple[float | int | str | None, str | None]
"""A tag's value and its unit."""


@define(eq=False)
class Line:
    """An instruction of a method, with the lines in its body; `text` is without indentation.

    `error` says why it cannot be carried out, or is None.
    """

    id: str
    text: str
    name: str
    argument: str
    parent: "Line | None" = None
    children: "list[Line]" = field(factory=list)
    error: str | None = None


def parse(lines: Iterable[mdl.MethodLine]) -> Line:
    """Return the root of the tree of these lines, without blank lines and comments."""
    root = Line(id="", text="", name="", argument="")
    scopes = [root]
    for source in lines:
        text = source.content.strip()
        if not text or text.startswith("#"):
            continue
        indent = len(source.content) - len(source.content.lstrip(" "))
        depth = indent // _INDENT
        name, argument = _split(text)
        line = Line(id=source.id, text=text, name=name, argument=argument)
        if indent % _INDENT or depth >= len(scopes):
            line.error = f"The indentation of '{text}' is wrong: {_INDENT} spaces for each level"
            depth = min(depth, len(scopes) - 1)
        del scopes[depth + 1 :]
        line.parent = scopes[-1]
        scopes[-1].children.append(line)
        if name in _SCOPE_NAMES:
            scopes.append(line)
    return root


def walk(line: Line) -> Iterable[Line]:
    """Yield the lines below this one in the order of the text, however deeply they are nested."""
    to_come = line.children[::-1]
    while to_come:
        line = to_come.pop()
        yield line
        to_come += line.children[::-1]


def _split(text: str) -> tuple[str, str]:
    """Return name and argument, without a comment that follows them."""
    code = text.split("#", 1)[0]
    name, _, argument = code.partition(":")
    return name.strip(), argument.strip()


def parse_quantity(text: str, unit: str) -> float:
    """Return the quantity that the text gives, in this unit.

    Raises:
        CommandError: the text is not a number with a unit of the same kind.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] is None:
        raise CommandError(f"'{text}' is not a number with a unit such as '{unit}'")
    return convert(float(match[1]), match[2], unit)


def convert(value: float, unit: str, to: str) -> float:
    """Return a value converted from `unit` to the unit `to`.

    Raises:
        CommandError: the units are of different kinds, or one is unknown.
    """
    if unit == to:
        return value
    kind, size = _UNITS.get(unit, (None, 1.0))
    to_kind, to_size = _UNITS.get(to, (None, 1.0))
    if kind is None or kind != to_kind:
        raise CommandError(f"The unit '{unit}' does not fit, use one such as '{to}'")
    return value * size / to_size


@frozen
class Condition:
    """A comparison of a tag with a number in the tag's unit, or with a text."""

    tag: str
    sign: str
    value: float | str

    def holds(self, read: Callable[[str], TagReading]) -> bool:
        """Tell whether it is true now; a tag without a value meets no comparison with a number."""
        value, _ = read(self.tag)
        if isinstance(self.value, str):
            same = str(value) == self.value
            return same if self.sign != "!=" else not same
        if isinstance(value, str) or value is None:
            return False
        return _OPERATORS[self.sign](value, self.value)


def parse_condition(text: str, read: Callable[[str], TagReading]) -> Condition:
    """Return the condition that the text gives, such as `Inlet pressure > 0.5 bar`.

    Raises:
        CommandError: the text, the tag or the unit is wrong.
    """
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise CommandError(f"'{text}' is not a condition such as 'Flow > 10 L/h'")
    tag, sign, right = match[1], match[2], match[3].strip()
    value, unit = read(tag)
    if unit is not None:
        return Condition(tag, sign, parse_quantity(right, unit))
    if isinstance(value, int | float):
        return Condition(tag, sign, _number(right))
    if sign not in ("=", "==", "!="):
        raise CommandError(f"The tag '{tag}' holds text: compare it with = or !=")
    return Condition(tag, sign, right)


def _number(text: str) -> float:
    if re.fullmatch(_NUMBER, text) is None:
        raise CommandError(f"'{text}' is not a number")
    return float(text)
