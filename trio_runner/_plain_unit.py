"""A unit made of functions: its readings, its commands, its plots."""

from collections.abc import Callable
from itertools import cycle

from attrs import define, field, frozen

from trio_runner._errors import CommandError
from trio_runner._plain_commands import PlainCommand, Range, check_read
from trio_runner.protocol import models as mdl

Value = float | int | str | None

_COLORS = "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf"

_AXIS: Range = (0, 100)
"""The ends of the axis for a reading without a range."""


@frozen
class PlainReading:
    """A tag that the page shows; with a command of its name, a person may enter a value there."""

    name: str
    read: Callable[[], Value]
    unit: str | None = None
    digits: int | None = None
    between: Range | None = None
    command: PlainCommand | None = None

    def __attrs_post_init__(self) -> None:
        """Raise TypeError unless `read` can be called without arguments, and is not async."""
        check_read(self.name, self.read)
        if self.command is not None:
            self.command.require_argument()

    def tag(self, now: float) -> mdl.TagValue:
        """Return the tag as it is at `now` (seconds since the epoch)."""
        value = self.read()
        return mdl.TagValue(
            name=self.name,
            tick_time=now,
            value=value,
            value_unit=self.unit,
            value_formatted=self._formatted(value),
            simulated=False,
        )

    def _formatted(self, value: Value) -> str | None:
        if self.digits is None or not isinstance(value, float | int):
            return None
        return f"{value:.{self.digits}f} {self.unit or ''}".rstrip()

    def info(self) -> mdl.ReadingInfo:
        """Return the reading as the page shows it."""
        command = self.command
        choices = () if command is None else command.choices
        kind = "choice" if choices else "entry"
        offered = mdl.ReadingCommand(
            command_id=self.name, name=self.name, command=self.name, choice_names=list(choices)
        )
        is_number = command is not None and command.is_number
        entered: mdl.EntryDataType = "float" if is_number else "str"
        return mdl.ReadingInfo(
            discriminator="reading" if command is None else f"reading_with_{kind}",
            tag_name=self.name,
            valid_value_units=[self.unit] if self.unit else None,
            entry_data_type=None if command is None or choices else entered,
            commands=[] if command is None else [offered],
            command_options={choice: f"{self.name}: {choice}" for choice in choices} or None,
        )

    def axis(self, color: str) -> mdl.PlotAxis:
        """Return the reading's axis in a plot."""
        low, high = self.between or _AXIS
        label = f"{self.name} ({self.unit})" if self.unit else self.name
        names = [self.name]
        return mdl.PlotAxis(
            label=label, process_value_names=names, y_max=high, y_min=low, color=color
        )


@define(eq=False)
class PlainUnit:
    """Readings and commands by name, and plots, all in the order in which they were added."""

    readings: dict[str, PlainReading] = field(factory=dict)
    commands: dict[str, PlainCommand] = field(factory=dict)
    plots: list[list[PlainReading]] = field(factory=list)

    def add_reading(self, reading: PlainReading) -> None:
        """Add a reading and its command. Raises ValueError if one of them has a name in use."""
        if reading.name in self.readings:
            raise ValueError(f"there are two readings named {reading.name!r}")
        if reading.command is not None:
            self.add_command(reading.command)
        self.readings[reading.name] = reading

    def add_command(self, command: PlainCommand) -> None:
        """Add a command. Raises ValueError if its name is in use."""
        if command.name in self.commands:
            raise ValueError(f"there are two commands named {command.name!r}")
        self.commands[command.name] = command

    def add_plot(self, names: tuple[str, ...]) -> None:
        """Add a plot of these readings. Raises ValueError if there is no reading of a name."""
        for name in names:
            if name not in self.readings:
                known = ", ".join(map(repr, self.readings))
                raise ValueError(f"no reading is named {name!r}; there are {known}")
        self.plots.append([self.readings[name] for name in names])

    def plot_configuration(self) -> mdl.PlotConfiguration:
        """Return the plots, one above the other, with an axis for each reading."""
        colors = cycle(_COLORS)
        axes = [[reading.axis(next(colors)) for reading in plot] for plot in self.plots]
        return mdl.PlotConfiguration(
            process_value_names_to_annotate=[],
            color_regions=[],
            sub_plots=[mdl.SubPlot(axes=of_plot, ratio=1) for of_plot in axes],
            x_axis_process_value_names=["Run Time"],
        )

    def parse(self, line: str) -> tuple[PlainCommand, list[float | str]] | None:
        """Return the command of a line, and the arguments of its function.

        Return None for an empty line or a comment. Raises CommandError if there is no such command
        or the argument does not fit.
        """
        text = line.partition("#")[0].strip()
        if not text:
            return None
        name, _, argument = (part.strip() for part in text.partition(":"))
        command = self.commands.get(name)
        if command is None:
            raise CommandError(f"There is no command '{name}'")
        return command, command.arguments(argument)
