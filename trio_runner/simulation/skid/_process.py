"""A small filtration skid as a pure function of time.

    feed -> pump -> inlet pressure -> filter -> valve -> tank, drain or back to the feed

The pump is a displacement pump with slip: the higher the pressure, the less it delivers, and at
`PUMP_SHUTOFF_BAR` it delivers nothing. The filter's resistance grows with the volume that it has
filtered. Flow and pressure follow with first-order lags; conductivity washes in as through a
stirred volume. A step is exact for steady inputs, so the size of a step matters little. The sensors
add the noise, see `measure`.
"""

import math
import random
from typing import Literal, get_args

from attrs import evolve, frozen

Valve = Literal["Feed", "Drain", "Recirculate"]
"""Where the liquid goes: through the filter to the tank, to the drain, or around the filter."""

VALVES: tuple[Valve, ...] = get_args(Valve)

PUMP_L_H_PER_PERCENT = 0.6
PUMP_SHUTOFF_BAR = 6.0
PUMP_LAG_S = 1.0
PRESSURE_LAG_S = 0.5
CLEAN_RESISTANCE_BAR_H_L = 0.02
"""The resistance of a clean filter: 0.4 bar at 20 L/h."""
BYPASS_RESISTANCE_BAR_H_L = 0.005
FOULING_VOLUME_L = 2.0
"""The filtered volume that doubles the clean filter's resistance; twice as much triples it."""
HOLDUP_L = 0.1
"""The stirred volume between filter and conductivity sensor."""
FEED_CONDUCTIVITY_MS_CM = 12.0
WATER_CONDUCTIVITY_MS_CM = 0.2
DENSITY_KG_L = 1.0
_S_PER_H = 3600.0


@frozen(kw_only=True)
class Controls:
    """What the skid is told to do; the defaults are its safe state.

    `flow_l_h` is the set point of the flow controller; while it is None, the pump runs at
    `pump_percent`.
    """

    pump_percent: float = 0.0
    flow_l_h: float | None = None
    valve: Valve = "Recirculate"


@frozen(kw_only=True)
class SkidState:
    """The state of the skid at one instant."""

    pump_percent: float = 0.0
    flow_l_h: float = 0.0
    pressure_bar: float = 0.0
    filtered_l: float = 0.0
    tank_kg: float = 0.0
    conductivity_ms_cm: float = WATER_CONDUCTIVITY_MS_CM


def resistance(state: SkidState, valve: Valve) -> float:
    """Return the resistance that the pump works against, in bar per L/h."""
    if valve == "Recirculate":
        return BYPASS_RESISTANCE_BAR_H_L
    return CLEAN_RESISTANCE_BAR_H_L * (1 + state.filtered_l / FOULING_VOLUME_L)


def step(state: SkidState, dt_s: float, controls: Controls) -> SkidState:
    """Return the state `dt_s` seconds later."""
    pump_percent = _pump_percent(state.pressure_bar, controls)
    flow_goal = pump_percent * PUMP_L_H_PER_PERCENT * _pump_efficiency(state.pressure_bar)
    flow_l_h = _lag(state.flow_l_h, flow_goal, PUMP_LAG_S, dt_s)
    pressure_goal = flow_l_h * resistance(state, controls.valve)
    moved = evolve(
        state,
        pump_percent=pump_percent,
        flow_l_h=flow_l_h,
        pressure_bar=_lag(state.pressure_bar, pressure_goal, PRESSURE_LAG_S, dt_s),
    )
    if controls.valve == "Recirculate":
        return moved
    volume_l = (state.flow_l_h + flow_l_h) / 2 * dt_s / _S_PER_H
    return _filter(moved, volume_l, to_tank=controls.valve == "Feed")


def _filter(state: SkidState, volume_l: float, *, to_tank: bool) -> SkidState:
    washed_in = 1 - math.exp(-volume_l / HOLDUP_L)
    difference_ms_cm = FEED_CONDUCTIVITY_MS_CM - state.conductivity_ms_cm
    return evolve(
        state,
        filtered_l=state.filtered_l + volume_l,
        tank_kg=state.tank_kg + (volume_l * DENSITY_KG_L if to_tank else 0.0),
        conductivity_ms_cm=state.conductivity_ms_cm + washed_in * difference_ms_cm,
    )


def _pump_efficiency(pressure_bar: float) -> float:
    return max(0.0, 1 - pressure_bar / PUMP_SHUTOFF_BAR)


def _pump_percent(pressure_bar: float, controls: Controls) -> float:
    """Return the pump's speed: as told, or as the flow controller derives it from the pressure."""
    if controls.flow_l_h is None:
        return controls.pump_percent
    full_flow_l_h = 100 * PUMP_L_H_PER_PERCENT * _pump_efficiency(pressure_bar)
    if controls.flow_l_h >= full_flow_l_h:
        return 100.0
    return 100 * controls.flow_l_h / full_flow_l_h


def _lag(value: float, goal: float, time_constant_s: float, dt_s: float) -> float:
    return goal + (value - goal) * math.exp(-dt_s / time_constant_s)


@frozen(kw_only=True)
class Sensor:
    """A sensor's noise (standard deviation) and the decimals it shows, in the unit of its tag."""

    noise: float
    decimals: int


FLOW_SENSOR = Sensor(noise=0.05, decimals=2)
FLOW_CUT_OFF_L_H = 0.3
"""Below this the flow sensor reads 0, as such sensors do."""
PRESSURE_SENSOR = Sensor(noise=0.003, decimals=3)
TANK_SCALE = Sensor(noise=0.0005, decimals=4)
CONDUCTIVITY_SENSOR = Sensor(noise=0.01, decimals=3)


def measure(state: SkidState, rng: random.Random) -> dict[str, float]:
    """Return what the skid's sensors read, by tag name, with noise drawn from `rng`."""

    def read(value: float, sensor: Sensor) -> float:
        return round(value + rng.gauss(0, sensor.noise), sensor.decimals)

    flow = read(state.flow_l_h, FLOW_SENSOR)
    return {
        "Flow": 0.0 if flow < FLOW_CUT_OFF_L_H else flow,
        "Inlet pressure": read(state.pressure_bar, PRESSURE_SENSOR),
        "Tank": read(state.tank_kg, TANK_SCALE),
        "Conductivity": read(state.conductivity_ms_cm, CONDUCTIVITY_SENSOR),
        "Pump": round(state.pump_percent, 1),
    }
