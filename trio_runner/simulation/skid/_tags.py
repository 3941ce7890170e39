"""The simulated engine's tags: their values, units and times of change, and which have changed."""

from collections.abc import Iterable
from datetime import UTC, datetime

from attrs import define, field, frozen

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import SystemTagName as Name
from trio_runner.protocol.models import TagDirection
from trio_runner.simulation.skid._pcode import TagReading

Value = float | int | str | None


@frozen
class Tag:
    """The description of a tag; `value` is what it holds at first."""

    name: str
    value: Value = None
    unit: str | None = None
    direction: TagDirection = TagDirection.NA
    as_clock: bool = False


SYSTEM_TAGS = (
    Tag(Name.CONNECTION_STATUS, "Connected"),
    Tag(Name.BASE, "min"),
    Tag(Name.RUN_COUNTER, 0),
    Tag(Name.BLOCK),
    Tag(Name.PROCESS_TIME, 0.0, "s", as_clock=True),
    Tag(Name.RUN_TIME, 0.0, "s", as_clock=True),
    Tag(Name.CLOCK, 0.0, "s", as_clock=True),
    Tag(Name.SYSTEM_STATE, mdl.SystemStateEnum.Stopped),
    Tag(Name.METHOD_STATUS, mdl.MethodStatusEnum.OK),
    Tag(Name.RUN_ID),
    Tag(Name.MARK, ""),
    Tag(Name.BLOCK_TIME, 0.0, "s", as_clock=True),
    Tag(Name.ARCHIVER),
)
"""The tags that every unit has. Run Time counts while a run is on. Process Time and Block Time
stand still while it is paused or held."""


@define
class Tags:
    """The values of the tags, and which of them have changed."""

    tags: tuple[Tag, ...]
    _values: dict[str, mdl.TagValue] = field(init=False, factory=dict)
    _changed: dict[str, None] = field(init=False, factory=dict)  # a dict keeps the order

    def reset(self, tick_time: float) -> None:
        """Give all tags their first values, as of `tick_time` (s since the epoch)."""
        for tag in self.tags:
            self._values[tag.name] = _tag_value(tag, tag.value, tick_time)
            self._changed[tag.name] = None

    def set(self, values: dict[str, Value], tick_time: float) -> None:
        """Give tags these values; a tag that already has its value does not count as changed."""
        for tag in self.tags:
            if tag.name in values and values[tag.name] != self._values[tag.name].value:
                self._values[tag.name] = _tag_value(tag, values[tag.name], tick_time)
                self._changed[tag.name] = None

    def value(self, name: str) -> Value:
        """Return the value of the tag."""
        return self._values[name].value

    def read(self, name: str) -> TagReading:
        """Return value and unit of the tag.

        Raises:
            CommandError: there is no such tag.
        """
        if name not in self._values:
            raise CommandError(f"There is no tag '{name}'")
        return self._values[name].value, self._values[name].value_unit

    def select(self, names: Iterable[str]) -> list[mdl.TagValue]:
        """Return these tags with their values."""
        return [self._values[name] for name in names]

    def take_changed(self) -> list[mdl.TagValue]:
        """Return the tags that have changed since the last call of this or `take_all`."""
        changed = self.select(self._changed)
        self._changed.clear()
        return changed

    def take_all(self) -> list[mdl.TagValue]:
        """Return all tags; none counts as changed afterwards."""
        self._changed.clear()
        return list(self._values.values())


def _tag_value(tag: Tag, value: Value, tick_time: float) -> mdl.TagValue:
    formatted = _clock_text(value) if tag.as_clock and isinstance(value, float) else None
    return mdl.TagValue(
        name=str(tag.name),
        tick_time=tick_time,
        value=str(value) if isinstance(value, str) else value,  # a StrEnum becomes plain text
        value_unit=tag.unit,
        value_formatted=formatted,
        direction=tag.direction,
        simulated=False,
    )


def _clock_text(seconds: float) -> str:
    """Return hh:mm:ss, which starts again after a day, as in Open Pectus."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
