"""The mistakes that are easily made where a program meets the runner, named in the user's words."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from attrs import define, field

from trio_runner._say_once import SayOnce
from trio_runner._warnings import Warnings
from trio_runner.protocol import MessageBase, kind_of
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=MessageBase)

BLOCKED_S = 0.5
"""For how long a call to the engine may hold up Trio's thread (s) before it is told: nothing else
ran in that thread meanwhile."""

FAILS = Exception, SystemExit
"""How an engine's own code may fail; its `sys.exit()` must end only that code."""

EPOCH_S_MAX = 1e11
"""The year 5138 in seconds since the epoch; in milliseconds all instants since 1973 are greater."""

NUMBER, TEXT, VALUE = (float, int), (str, type(None)), (float, str, int, type(None))
"""What a tag may hold. `isinstance` takes a tuple in a fifth of the time of `float | int`, and it
is asked of every tag."""

NAMES_MAX = 3
"""How many missing methods are named; the rest are counted."""


def require(whose: str, argument: str, given: object, protocol: type) -> None:
    """Check that an argument has the methods of a Protocol.

    Raises:
        TypeError: it lacks some, which the message names; or it is a class.
    """
    if isinstance(given, type):
        raise TypeError(f"{whose}: {argument} has to be an instance, not the class {_name(given)}")
    wanted = [name for name in vars(protocol) if not name.startswith("_")]
    missing = [name for name in wanted if not callable(getattr(given, name, None))]
    if missing:
        more = f" and {len(missing) - NAMES_MAX} more" if len(missing) > NAMES_MAX else ""
        named = ", ".join(f"{name}()" for name in missing[:NAMES_MAX]) + more
        raise TypeError(
            f"{whose}: {argument} has to be {_a(protocol.__name__)}; {_kind(given)} has no {named}"
        )


def require_kind(whose: str, argument: str, given: object, kind: type) -> None:
    """Check that an argument is an instance of a class. Raises TypeError."""
    if not isinstance(given, kind):
        raise TypeError(f"{whose}: {argument} has to be {_a(kind.__name__)}, not {_kind(given)}")


def seconds(what: str, instant: float) -> float:
    """Return an instant in seconds since the epoch.

    Raises:
        ValueError: it is so late that it must be in a smaller unit.
    """
    if instant > EPOCH_S_MAX:
        raise ValueError(f"{what} is {instant:.0f}: it has to be in seconds since the epoch")
    return instant


def of_kind(kind: type[M], made: M | None) -> M:
    """Return what a message builder has made.

    Raises:
        TypeError: it is no message of this kind.
    """
    if made is None or kind_of(made) is not kind:
        raise TypeError(f"it has to return {_a(kind.__name__)}, not {_kind(made)}")
    return made


def fault_of(tag: mdl.TagValue) -> str | None:
    """Return why an aggregator would refuse a tag or take it wrongly, or None if it is sound."""
    if not isinstance(tag, mdl.TagValue):
        return f"it has to be a TagValue, not {_kind(tag)}"
    value, instant = tag.value, tag.tick_time
    if not isinstance(tag.name, str):
        return f"its name has to be a str, not {_kind(tag.name)}"
    if not isinstance(value, VALUE) or isinstance(value, bool):
        return f"its value has to be a float, an int, a str or None, not {_kind(value)}"
    if not isinstance(instant, NUMBER) or instant > EPOCH_S_MAX:
        found = f"{instant:.0f}" if isinstance(instant, NUMBER) else _kind(instant)
        return f"its tick_time has to be in seconds since the epoch, not {found}"
    if not isinstance(tag.value_unit, TEXT):
        return f"its value_unit has to be a str or None, not {_kind(tag.value_unit)}"
    if not isinstance(tag.value_formatted, TEXT):
        return f"its value_formatted has to be a str or None, not {_kind(tag.value_formatted)}"
    if not isinstance(tag.direction, str):
        return f"its direction has to be a TagDirection, not {_kind(tag.direction)}"
    if not (tag.simulated is None or isinstance(tag.simulated, int)):
        return f"its simulated has to be a bool or None, not {_kind(tag.simulated)}"
    return None


@define(eq=False)
class Complaints:
    """The teller of the engine's mistakes: once in the log, once a day in the unit's error log."""

    _warnings: Callable[[], Warnings]
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    def sound(self, tags: Iterable[mdl.TagValue]) -> list[mdl.TagValue]:
        """Return the tags that can be sent; tell of the others."""
        kept = []
        for tag in tags:
            fault = fault_of(tag)
            if fault is None:
                kept.append(tag)
            else:
                about = f"tag {tag.name}"
                self._tell(logging.ERROR, f"The tag {tag.name!r} is left out: {fault}", about)
        return kept

    def note_reading(self, name: str, error: BaseException) -> None:
        """Tell of a reading whose function raised, with the traceback in the log."""
        text = f"The reading {name!r} raised {_raised(error)}; it is left out"
        self._tell(logging.ERROR, text, f"reading {name}: {type(error).__name__}", error)

    def note_failure(self, create: Callable[..., Any], error: BaseException) -> None:
        """Tell of a message that the engine could not make, with the traceback in the log."""
        name = _call(create)
        text = f"{name} failed ({_raised(error)}); the runner goes on without it"
        self._tell(logging.ERROR, text, f"failed {name}: {type(error).__name__}", error)

    def note_call(self, create: Callable[..., Any], took_s: float) -> None:
        """Tell of a call to the engine that has held up Trio's thread for too long."""
        if took_s < BLOCKED_S:
            return
        name = _call(create)
        text = (
            f"{name} has blocked Trio's thread for {took_s:.1f} s, and nothing was sent or"
            " answered meanwhile: it should return at once, and do what blocks in a thread of its"
            " own"
        )
        self._tell(logging.WARNING, text, f"blocked {name}")

    def _tell(self, level: int, text: str, about: str, error: BaseException | None = None) -> None:
        self._say(level, "%s", text, about=about, error=error)
        self._warnings().tell(level, text, about=about)


def said(error: BaseException) -> str:
    """Return the text of an error of the engine, or nothing if that raises in turn."""
    try:
        return str(error)
    except FAILS:
        return ""


def _raised(error: BaseException) -> str:
    text = said(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _call(create: Callable[..., Any]) -> str:
    """Return the name of the engine's method that is called."""
    create = getattr(create, "func", create)  # of a partial
    owner, method = getattr(create, "__self__", None), getattr(create, "__name__", "a call")
    return method if owner is None else f"{type(owner).__name__}.{method}"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _kind(given: object) -> str:
    return _a(_name(type(given)))


def _name(kind: type) -> str:
    """Return the name of a class, with its package unless that is built in or `__main__`."""
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package in ("builtins", "__main__") else f"{package}.{kind.__name__}"
