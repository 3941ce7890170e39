"""Commands made from functions: which argument they take, and how people are told about them."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl

Range = tuple[float, float]
"""The lowest and the highest value, in the unit that is given with them."""

_NUMBER = r"-?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)"

_VALIDATOR = "RNAP-v1-"
"""The prefix of a validator that is a regular expression, as Open Pectus's editor reads it."""


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@frozen
class PlainCommand:
    """A command of the unit, carried out by a function, which may be async.

    A function without parameters takes no argument. Any other takes one of `choices`, or a number
    in `unit` and within `between` if either is given, or else a text. So does a function of C's
    whose parameters Python does not know.
    """

    name: str
    function: Callable[..., Any]
    unit: str | None = None
    between: Range | None = None
    choices: tuple[str, ...] = ()
    _has_argument: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Raise TypeError if `function` is not one or does not fit, ValueError for the range."""
        if not callable(self.function):
            raise TypeError(f"the command {self.name!r} needs a function, not {self.function!r}")
        check_range(self.name, self.between)
        whose, signature = f"the function of {self.name!r}", _signature_of(self.function)
        has_argument = signature is None or bool(_positional(signature))
        object.__setattr__(self, "_has_argument", has_argument)
        if signature is not None:
            _check_call(whose, signature, ("text",) if has_argument else ())
        if not has_argument and self.choices:
            raise TypeError(f"{whose} takes no argument, but choices are given")
        if not has_argument and (self.unit is not None or self.between is not None):
            raise TypeError(f"{whose} takes no argument, but a unit or a range is given")

    def require_argument(self) -> None:
        """Raise TypeError if the function takes none."""
        if not self._has_argument:
            raise TypeError(
                f"the function of {self.name!r} takes no argument, but a value is entered"
            )

    @property
    def is_number(self) -> bool:
        """Whether the argument is a number."""
        is_limited = self.unit is not None or self.between is not None
        return self._has_argument and not self.choices and is_limited

    @property
    def example(self) -> str:
        """An example: a line of a method with this command."""
        if not self._has_argument:
            return self.name
        if self.choices:
            return f"{self.name}: {self.choices[0]}"
        if not self.is_number:
            return f"{self.name}: text"
        highest = f"{self.between[1] if self.between else 1:g}"
        return f"{self.name}: {highest} {self.unit or ''}".rstrip()

    @property
    def docstring(self) -> str:
        """The function's own first line, and the example, as the page shows them."""
        first = (inspect.getdoc(self.function) or "").partition("\n")[0]
        return f"# {first}\n{self.example}" if first else self.example

    def info(self) -> mdl.CommandInfo:
        """Return the command as the page offers it."""
        return mdl.CommandInfo(name=self.name, docstring=self.docstring)

    def definition(self) -> mdl.CommandDefinition:
        """Return the definition by which the editor checks the command."""
        validator = rf"{_VALIDATOR}^\s*(?:{self._pattern()})\s*$"
        return mdl.CommandDefinition(name=self.name, validator=validator, docstring=self.docstring)

    def _pattern(self) -> str:
        if not self._has_argument:
            return ""
        if self.choices:
            return f"(?P<option>{'|'.join(map(re.escape, self.choices))})"
        if not self.is_number:
            return ".+"
        unit = f" ?(?P<number_unit>{re.escape(self.unit)})" if self.unit else ""
        return f"(?P<number>{_NUMBER}){unit}"

    def arguments(self, text: str) -> list[float | str]:
        """Return the arguments of the function. Raises CommandError, in the person's words."""
        found = re.fullmatch(self._pattern(), text)
        if found is None:
            wrong = f"'{text}' does not fit" if text else "something is missing"
            raise CommandError(f"{self.name}: {wrong}; write, for instance, '{self.example}'")
        if not self._has_argument:
            return []
        return [self._within(float(found["number"]))] if self.is_number else [text]

    def _within(self, value: float) -> float:
        if self.between is not None and not self.between[0] <= value <= self.between[1]:
            low, high = (f"{end:g} {self.unit or ''}".rstrip() for end in self.between)
            raise CommandError(f"{self.name}: {value:g} is not between {low} and {high}")
        return value


def check_range(name: str, between: Range | None) -> None:
    """Raise ValueError unless the lower end of a range comes first."""
    if between is not None and not between[0] < between[1]:
        raise ValueError(f"{name!r}: between has to be the lowest and the highest, not {between}")


def check_read(name: str, read: Callable[..., object]) -> None:
    """Raise TypeError unless a reading's function can be called without arguments and at once."""
    if not callable(read):
        raise TypeError(f"the reading {name!r} needs a function, not {read!r}")
    whose = f"the function of the reading {name!r}"
    if inspect.iscoroutinefunction(read) or inspect.iscoroutinefunction(type(read).__call__):
        raise TypeError(f"{whose} is async; it has to return the value at once")
    signature = _signature_of(read)
    if signature is not None:
        _check_call(whose, signature, ())


def _signature_of(function: Callable[..., object]) -> inspect.Signature | None:
    """Return a function's signature, or None if it is one of C's that does not tell it."""
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def _positional(signature: inspect.Signature) -> list[inspect.Parameter]:
    return [each for each in signature.parameters.values() if each.kind in _POSITIONAL]


def _check_call(whose: str, signature: inspect.Signature, arguments: tuple[object, ...]) -> None:
    """Raise TypeError, in the user's words, unless a function can be called like this."""
    try:
        signature.bind(*arguments)
    except TypeError:
        pass
    else:
        return
    named = [each.name for each in signature.parameters.values() if _is_needed_by_name(each)]
    count = "one argument" if arguments else "no argument"
    if named:
        raise TypeError(f"{whose} cannot be called without {named[0]!r}; it gets {count}")
    needed = sum(each.default is each.empty for each in _positional(signature))
    raise TypeError(f"{whose} has to take {count}, it takes {needed}")


def _is_needed_by_name(each: inspect.Parameter) -> bool:
    return each.kind is each.KEYWORD_ONLY and each.default is each.empty
