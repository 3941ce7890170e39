"""The filtration skid as a unit: its tags, its commands, and how the page shows them."""

import random

from attrs import define, evolve, field

from trio_runner._errors import CommandError
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import TagDirection
from trio_runner.simulation.skid import _process
from trio_runner.simulation.skid._commands import NOTHING, NUMBER, SYSTEM_COMMANDS, Command
from trio_runner.simulation.skid._pcode import parse_quantity
from trio_runner.simulation.skid._process import VALVES, Controls, SkidState, Valve
from trio_runner.simulation.skid._tags import SYSTEM_TAGS, Tag, Value

FLOW_MAX_L_H = 60.0

SKID_TAGS = (
    Tag("Flow", 0.0, "L/h", TagDirection.Input),
    Tag("Inlet pressure", 0.0, "bar", TagDirection.Input),
    Tag("Tank", 0.0, "kg", TagDirection.Input),
    Tag("Conductivity", 0.0, "mS/cm", TagDirection.Input),
    Tag("Pump", 0.0, "%", TagDirection.Output),
    Tag("Flow setpoint", 0.0, "L/h", TagDirection.Output),
    Tag("Valve", "Recirculate", direction=TagDirection.Output),
)

SKID_COMMANDS = (
    Command(
        "Pump",
        rf"(?P<number>{NUMBER}) ?(?P<number_unit>%)",
        "Run the pump at this speed, from 0 to 100 %; ends flow control.",
        "Pump: 40 %",
    ),
    Command(
        "Set flow",
        rf"(?P<number>{NUMBER}) ?(?P<number_unit>L/h|L/min|L/d)",
        "Let the pump keep this flow, from 0 to 60 L/h.",
        "Set flow: 20 L/h",
    ),
    Command(
        "Valve",
        rf"(?P<option>{'|'.join(VALVES)})",
        "Filter into the tank (Feed) or the drain (Drain), or bypass the filter (Recirculate).",
        "Valve: Feed",
    ),
    Command("Reset tank", NOTHING, "Empty the permeate tank.", "Reset tank"),
    Command("Change filter", NOTHING, "Put in a clean filter.", "Change filter"),
)

COMMANDS = SYSTEM_COMMANDS + SKID_COMMANDS
TAGS = SYSTEM_TAGS + SKID_TAGS


@define
class Skid:
    """The skid with its controls; while `is_safe`, the outputs have their safe values."""

    _noise: random.Random
    state: SkidState = field(factory=SkidState)
    controls: Controls = field(factory=Controls)
    is_safe: bool = False

    @property
    def outputs(self) -> Controls:
        """The controls that the skid follows at the moment."""
        return Controls() if self.is_safe else self.controls

    def make_safe(self) -> None:
        """Set the controls themselves to their safe values, and leave the safe state."""
        self.controls, self.is_safe = Controls(), False

    def tick(self, dt_s: float) -> None:
        """Let `dt_s` seconds pass."""
        self.state = _process.step(self.state, dt_s, self.outputs)

    def tag_values(self) -> dict[str, Value]:
        """Return the values of the skid's tags, with the sensors' noise."""
        values: dict[str, Value] = {**_process.measure(self.state, self._noise)}
        return values | self.output_values()

    def output_values(self) -> dict[str, Value]:
        """Return the values of the tags that follow from the outputs alone."""
        return {"Flow setpoint": self.outputs.flow_l_h or 0.0, "Valve": self.outputs.valve}

    def execute(self, name: str, argument: str) -> None:
        """Carry out a command of the skid whose form has been checked.

        Raises:
            CommandError: the value is out of range.
        """
        match name:
            case "Pump":
                percent = _in_range(parse_quantity(argument, "%"), 100.0, "%", name)
                self.controls = evolve(self.controls, pump_percent=percent, flow_l_h=None)
            case "Set flow":
                flow = _in_range(parse_quantity(argument, "L/h"), FLOW_MAX_L_H, "L/h", name)
                self.controls = evolve(self.controls, flow_l_h=flow)
            case "Valve":
                self.controls = evolve(self.controls, valve=_valve(argument))
            case "Reset tank":
                self.state = evolve(self.state, tank_kg=0.0)
            case "Change filter":
                self.state = evolve(self.state, filtered_l=0.0)


def _in_range(value: float, highest: float, unit: str, name: str) -> float:
    if not 0 <= value <= highest:
        raise CommandError(f"{name}: {value:g} {unit} is not between 0 and {highest:g} {unit}")
    return value


def _valve(argument: str) -> Valve:
    return next(valve for valve in VALVES if valve == argument)


def _reading(tag: str, *units: str) -> mdl.ReadingInfo:
    return mdl.ReadingInfo(
        discriminator="reading",
        tag_name=tag,
        valid_value_units=list(units) or [""],
        entry_data_type=None,
        commands=[],
        command_options=None,
    )


def _entry(tag: str, command: str, *units: str) -> mdl.ReadingInfo:
    offered = mdl.ReadingCommand(command_id=tag, name=tag, command=command, choice_names=[])
    return mdl.ReadingInfo(
        discriminator="reading_with_entry",
        tag_name=tag,
        valid_value_units=list(units),
        entry_data_type="float",
        commands=[offered],
        command_options=None,
    )


def _choice(tag: str, options: dict[str, str]) -> mdl.ReadingInfo:
    offered = mdl.ReadingCommand(
        command_id=tag, name=tag, command="(empty)", choice_names=list(options)
    )
    return mdl.ReadingInfo(
        discriminator="reading_with_choice",
        tag_name=tag,
        valid_value_units=[""],
        entry_data_type=None,
        commands=[offered],
        command_options=options,
    )


READINGS = [
    _reading("Run Time", "s", "min", "h"),
    _reading("Flow", "L/h", "L/min", "L/d"),
    _reading("Inlet pressure", "bar", "Pa"),
    _reading("Tank", "kg", "g"),
    _reading("Conductivity", "mS/cm", "µS/cm"),
    _entry("Pump", "Pump", "%"),
    _entry("Flow setpoint", "Set flow", "L/h", "L/min", "L/d"),
    _choice("Valve", {valve: f"Valve: {valve}" for valve in VALVES}),
]
READING_NAMES = [reading.tag_name for reading in READINGS]


def _axis(tag: str, y_max: float, color: str) -> mdl.PlotAxis:
    return mdl.PlotAxis(label=tag, process_value_names=[tag], y_max=y_max, y_min=0, color=color)


PLOT = mdl.PlotConfiguration(
    process_value_names_to_annotate=["Mark"],
    color_regions=[
        mdl.PlotColorRegion(
            process_value_name="Valve",
            value_color_map={"Feed": "#66cc6633", "Drain": "#cc996633"},
        )
    ],
    sub_plots=[
        mdl.SubPlot(
            axes=[_axis("Flow", 60, "#1f77b4"), _axis("Inlet pressure", 6, "#d62728")], ratio=2
        ),
        mdl.SubPlot(
            axes=[_axis("Tank", 5, "#2ca02c"), _axis("Conductivity", 15, "#9467bd")], ratio=1
        ),
    ],
    x_axis_process_value_names=["Run Time"],
)


def uod_info(data_log_interval_s: float) -> em.UodInfoMsg:
    """Return the description of the unit."""
    return em.UodInfoMsg(
        readings=READINGS,
        commands=[mdl.CommandInfo(name=c.name, docstring=c.docstring) for c in SKID_COMMANDS],
        uod_definition=mdl.UodDefinition(
            commands=[command.definition() for command in SKID_COMMANDS],
            system_commands=[command.definition() for command in SYSTEM_COMMANDS],
            tags=[mdl.TagDefinition(name=str(tag.name), unit=tag.unit) for tag in TAGS],
        ),
        plot_configuration=PLOT,
        hardware_str="Simulated filtration skid",
        required_roles=frozenset(),
        data_log_interval_seconds=data_log_interval_s,
    )
