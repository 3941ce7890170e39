"""The skid's dynamics, compared with what its constants give on paper."""

import math
import random
import statistics

import pytest

from trio_runner.simulation.skid import _process
from trio_runner.simulation.skid._process import Controls, SkidState, Valve, measure, step


def after(seconds: float, controls: Controls, state: SkidState | None = None) -> SkidState:
    """Return the state after so many seconds in steps of 0.1 s."""
    state = SkidState() if state is None else state
    for _ in range(round(seconds * 10)):
        state = step(state, 0.1, controls)
    return state


def test_nothing_moves_in_the_safe_state() -> None:
    """Without a command nothing moves."""
    assert after(60, Controls()) == SkidState()


def test_the_flow_follows_the_pump_with_a_lag_of_a_second() -> None:
    """After one time constant the flow is 1 - 1/e of the way, hardly slowed by the bypass."""
    controls = Controls(pump_percent=50)
    # 50 % are 30 L/h without pressure; against 0.005 bar per L/h the pump gives
    # q = 30 * (1 - 0.005 q / 6), that is 30 / 1.025 = 29.268 L/h.
    assert after(60, controls).flow_l_h == pytest.approx(30 / 1.025, rel=1e-9)
    assert after(1, controls).flow_l_h == pytest.approx(30 * (1 - math.exp(-1)), rel=0.02)


def test_flow_control_holds_its_set_point_while_recirculating() -> None:
    """The controller makes up for the pump's slip: at a steady pressure the flow is exact."""
    state = after(60, Controls(flow_l_h=20))
    assert state.flow_l_h == pytest.approx(20, rel=1e-9)
    assert state.pressure_bar == pytest.approx(20 * 0.005, rel=1e-9)
    # 100 * 20 / (60 * (1 - 0.1 / 6))
    assert state.pump_percent == pytest.approx(33.898305, rel=1e-6)


def test_the_tank_gains_the_integral_of_the_flow() -> None:
    """Mass balance: trapezoids of the flow, with the density of water."""
    controls = Controls(flow_l_h=20, valve="Feed")
    state, litres = SkidState(), 0.0
    for _ in range(600):
        following = step(state, 0.1, controls)
        litres += (state.flow_l_h + following.flow_l_h) / 2 * 0.1 / 3600
        state = following
    assert state.tank_kg == pytest.approx(litres * 1.0, rel=1e-12)
    # 60 s at 20 L/h are 0.3333 L, less the lag's 1 s at 20 L/h, 0.0056 L
    assert state.tank_kg == pytest.approx(20 * (60 - 1) / 3600, rel=0.01)


def test_pressure_rises_with_the_filtered_volume_at_constant_flow() -> None:
    """Two litres double a clean filter's resistance: 0.4 bar at 20 L/h become 0.8 bar."""
    controls = Controls(flow_l_h=20, valve="Feed")
    state = after(20, controls)
    pressures = []
    while state.filtered_l < 2:
        state = after(1, controls, state)
        pressures.append(state.pressure_bar)
    assert pressures == sorted(pressures)
    assert state.flow_l_h == pytest.approx(20, rel=0.001)
    assert state.pressure_bar == pytest.approx(0.8, rel=0.01)


def test_a_fouled_filter_slows_the_pump_and_never_passes_its_shutoff_pressure() -> None:
    """At 200 L the resistance is 101 times that of a clean filter; the pump gives what it can."""
    state = after(60, Controls(flow_l_h=60, valve="Drain"), SkidState(filtered_l=200.0))
    # q = 60 * (1 - 2.02 q / 6) is 60 / 21.2 = 2.83 L/h, at 2.02 * 2.83 = 5.717 bar
    assert state.flow_l_h == pytest.approx(60 / 21.2, rel=0.001)
    assert state.pressure_bar == pytest.approx(2.02 * 60 / 21.2, rel=0.001)
    assert state.pressure_bar < _process.PUMP_SHUTOFF_BAR


@pytest.mark.parametrize(
    ("valve", "fills_tank", "fouls"),
    [("Feed", True, True), ("Drain", False, True), ("Recirculate", False, False)],
)
def test_the_valve_decides_where_the_liquid_goes(
    valve: Valve, fills_tank: bool, fouls: bool
) -> None:
    """Only Feed fills the tank; Feed and Drain foul the filter."""
    state = after(30, Controls(pump_percent=40, valve=valve))
    assert (state.tank_kg > 0.05) is fills_tank
    assert (state.filtered_l > 0.05) is fouls


def test_conductivity_approaches_that_of_the_feed_with_the_volume() -> None:
    """One hold-up volume brings it 1 - 1/e of the way from water to feed."""
    state = SkidState(flow_l_h=36.0)
    controls = Controls(flow_l_h=36, valve="Feed")
    while state.filtered_l < _process.HOLDUP_L:
        state = step(state, 0.01, controls)
    goal = 12.0 - (12.0 - 0.2) * math.exp(-1)
    assert state.conductivity_ms_cm == pytest.approx(goal, rel=0.005)


def test_the_size_of_the_step_hardly_matters() -> None:
    """A coarse step of 0.5 s ends within 1 % of fine steps of 0.01 s."""
    controls = Controls(flow_l_h=20, valve="Feed")
    coarse = fine = SkidState()
    for _ in range(120):
        coarse = step(coarse, 0.5, controls)
    for _ in range(6000):
        fine = step(fine, 0.01, controls)
    assert coarse.tank_kg == pytest.approx(fine.tank_kg, rel=0.01)


def test_noise_depends_on_the_seed_alone_and_is_as_large_as_the_sensors() -> None:
    """The same seed gives the same readings, which scatter around the value as the sensor does."""
    state = SkidState(flow_l_h=20, pressure_bar=0.4, tank_kg=1)
    first, second = random.Random(1), random.Random(1)
    assert measure(state, first) == measure(state, second)
    flows = [measure(state, first)["Flow"] for _ in range(2000)]
    assert statistics.mean(flows) == pytest.approx(20, abs=0.01)
    assert statistics.stdev(flows) == pytest.approx(0.05, rel=0.1)


def test_a_standing_pump_reads_as_no_flow() -> None:
    """Below the sensor's cut-off, no noise is shown."""
    rng = random.Random(2)
    assert {measure(SkidState(), rng)["Flow"] for _ in range(200)} == {0.0}
