"""The simulated engine at the real aggregator, seen through the aggregator's HTTP interface."""

import csv
import operator
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from tests.helpers.install import VERSION
from trio_runner import (
    AlreadyConnected,
    EngineDispatcher,
    EngineRunner,
    SecretRefused,
    Timing,
    VersionRefused,
)
from trio_runner.net._framed import FramedStream
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import SimulatedEngine

from ._aggregator import RealAggregator, eventually
from ._unit import CONNECT_S, NotingEngine, RunningUnit, open_api, running_unit

# The first test may have to install the aggregator.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

OUTAGE_S = 6.0
# The skid logs every 1 s (its data-log interval), and samples every 1 s while offline. The
# aggregator stores a sample that is *more* than 1 s newer than the last stored one. One that comes
# at 0.99 s is left out, and the next follows 1 s later: 2 s. Add 0.5 s for two busy processors.
GAP_S_MAX = 2.5


async def test_a_unit_is_listed_as_ready_then_as_in_progress(aggregator: RealAggregator) -> None:
    """The list of units has the engine, ready; from Start to Stop it is in progress."""
    async with running_unit(aggregator, "Listed unit") as unit:
        listed = await unit.api.unit()
        assert listed is not None
        assert listed["location"] == unit.engine.location
        assert listed["name"] == f"{unit.engine.computer_name} (Listed unit)"
        await unit.api.press("Start")
        await eventually(unit.api.state, lambda state: state == "in_progress")
        await unit.api.press("Stop")
        await eventually(unit.api.state, lambda state: state == "ready")
    async with open_api(aggregator, "Listed unit") as api:
        await eventually(api.state, lambda state: state == "not_online")


@define(eq=False)
class _Overheard(FramedStream):
    """A stream that keeps its incoming bytes."""

    heard: bytearray = field(factory=bytearray)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        self.heard += data
        return data


async def test_messages_are_sent_compressed(aggregator: RealAggregator) -> None:
    """The aggregator agrees to permessage-deflate, compresses, and takes what we send."""
    streams: list[_Overheard] = []

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        streams.append(_Overheard(await trio.open_tcp_stream(host, port)))
        return streams[-1]

    engine = SimulatedEngine(name="Compressed unit")
    dispatcher = EngineDispatcher(port=aggregator.port, handlers=engine, open_stream=open_stream)
    runner = EngineRunner(dispatcher, engine, engine)
    async with open_api(aggregator, "Compressed unit") as api, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await eventually(api.process_values, bool)
        nursery.cancel_scope.cancel()
    head, _, frames = bytes(streams[-1].heard).partition(b"\r\n\r\n")
    assert b"permessage-deflate" in head
    assert frames[0] == 0xC1  # the last frame of a compressed text
    assert runner.statistics().outbox.set_aside == 0
    assert runner.statistics().outbox.waiting == 0


async def test_process_values_have_units_and_commands(aggregator: RealAggregator) -> None:
    """The readings have the skid's units, values and commands."""
    async with running_unit(aggregator, "Unit with values") as unit:
        values = await unit.api.process_values()
        shown = {name: v.get("value_unit") for name, v in values.items() if not v.get("plot_only")}
        assert shown == {
            "Run Time": "s",
            "Flow": "L/h",
            "Inlet pressure": "bar",
            "Tank": "kg",
            "Conductivity": "mS/cm",
            "Pump": "%",
            "Flow setpoint": "L/h",
            "Valve": None,
        }
        assert values["Valve"]["value"] == "Recirculate"
        options = values["Valve"]["commands"][0]["value"]["options"]
        assert options == ["Feed", "Drain", "Recirculate"]
        assert values["Pump"]["commands"][0]["value"]["value_unit"] == "%"
        examples = await unit.api.of_unit("command_examples")
        offered = {example["name"] for example in examples}
        assert offered >= {"Pump", "Set flow", "Valve", "Reset tank", "Change filter"}


async def test_a_method_is_saved_and_started_and_its_state_comes_back(
    aggregator: RealAggregator,
) -> None:
    """A method saved on the page runs in the engine; run log and line states come back."""
    async with running_unit(aggregator, "Unit with method") as unit:
        method = ["Pump: 40 %", "Mark: begun", "Wait: 1 min"]
        pump, mark, wait = await unit.api.set_method(*method)
        in_engine = unit.engine.create_method_msg().method
        assert [line.content for line in in_engine.lines] == method

        await unit.api.press("Start")
        await eventually(_method_and_state(unit), _is_at(wait, behind=[pump, mark]))
        lines = (await eventually(_run_log(unit), lambda log: len(log["lines"]) == 3))["lines"]
        assert [line["command"]["command"] for line in lines] == method
        await eventually(unit.api.process_values, lambda v: v["Pump"]["value"] == 40)
        await unit.api.press("Stop")


class _Blocking(NotingEngine):
    """A skid with a command whose handler holds up Trio's thread."""

    async def execute_control_command(self, name: str) -> None:
        if name == "Pause":
            time.sleep(0.6)  # noqa: ASYNC251 - as a handler should not
        await super().execute_control_command(name)


async def test_a_warning_of_the_runner_is_in_the_units_error_log(
    aggregator: RealAggregator,
) -> None:
    """A handler that blocked Trio's thread twice is named there once."""
    async with running_unit(aggregator, "Unit with a warning", kind=_Blocking) as unit:
        await unit.api.press("Start")
        await eventually(unit.api.state, lambda state: state == "in_progress")
        for _ in range(2):
            await unit.api.press("Pause")
            await eventually(_is_paused(unit), bool)
            await unit.api.press("Unpause")
            await eventually(_is_paused(unit), operator.not_)
        log = await unit.api.of_unit("error_log")
        (entry,) = log["entries"]
        assert "has blocked Trio's thread for 0." in entry["message"]
        assert (entry["severity"], entry["occurrences"]) == ("warning", 1)
        await unit.api.press("Stop")


def _is_paused(unit: RunningUnit) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        state = await unit.api.of_unit("control_state")
        return bool(state["is_paused"])

    return ask


async def test_a_command_entered_by_hand_works(aggregator: RealAggregator) -> None:
    """What a person enters is carried out, and the process values show it."""
    async with running_unit(aggregator, "Unit by hand") as unit:
        await unit.api.press("Start")
        answer = await unit.api.enter("Pump: 35 %")
        assert answer.status_code == 200, answer.text
        await eventually(unit.api.process_values, lambda v: v["Pump"]["value"] == 35)
        answer = await unit.api.choose("Valve", "Feed")
        assert answer.status_code == 200, answer.text
        await eventually(unit.api.process_values, lambda v: v["Valve"]["value"] == "Feed")
        await unit.api.press("Stop")


async def test_an_invalid_command_is_answered_as_the_persons_error(
    aggregator: RealAggregator,
) -> None:
    """What cannot be carried out is answered with the reason, and the link stays."""
    async with running_unit(aggregator, "Unit with nonsense") as unit:
        answer = await unit.api.enter("Levitate: 3 m")
        assert answer.status_code == 500
        assert "Unknown command 'Levitate'" in answer.json()["detail"]
        await unit.api.press("Start")
        refused = await unit.api.post(
            "execute_control_button_command", {"command": "Start", "source": "unit_button"}
        )
        assert refused.status_code == 400
        await unit.api.press("Stop")
        assert unit.runner.statistics().links == 1


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_an_outage_in_a_run_leaves_no_hole(aggregator: RealAggregator, how: str) -> None:
    """After a restart or a crash of the aggregator in mid-run, the whole run is there."""
    async with running_unit(aggregator, f"Unit in a {how}") as unit:
        method = ["Pump: 40 %", "Valve: Feed", "Wait: 10 min"]
        ids = await unit.api.set_method(*method)
        await unit.api.press("Start")
        await eventually(_method_and_state(unit), _is_at(ids[2], behind=ids[:2]))
        await eventually(_ticks(unit), lambda ticks: len(ticks) >= 2)
        run_id = unit.runner.statistics().run_id

        await trio.to_thread.run_sync(aggregator.stop if how == "restart" else aggregator.kill)
        down = unit.engine.clock()
        await trio.sleep(OUTAGE_S)
        up = unit.engine.clock()
        await trio.to_thread.run_sync(aggregator.start)

        await eventually(unit.api.state, lambda s: s == "in_progress", within_s=CONNECT_S)
        await eventually(_ticks(unit), lambda ticks: bool(ticks) and ticks[-1] > up + GAP_S_MAX)
        plot_log = await unit.api.of_unit("plot_log")
        _assert_in_order(plot_log)
        _assert_no_hole(plot_log, down, up)
        _assert_holds_what_was_sampled(plot_log, unit.engine, down, up)
        assert [line["content"] for line in (await unit.api.of_unit("method"))["lines"]] == method
        await eventually(_method_and_state(unit), _is_at(ids[2], behind=ids[:2]))
        assert unit.runner.statistics().links == 2

        await unit.api.press("Stop")
        (run,) = await eventually(unit.api.runs, bool)
        assert run["run_id"] == run_id
        await _assert_archive_holds_the_outage(unit, run["run_id"], down, up)


async def test_a_wrong_secret_is_refused(aggregator: RealAggregator) -> None:
    """The error says that the secret was refused."""
    registration = _registration("Unit with a wrong secret")
    with pytest.raises(SecretRefused):
        await _dial(aggregator, evolve(registration, secret="wrong"))  # noqa: S106


async def test_a_wrong_version_is_refused(aggregator: RealAggregator) -> None:
    """The error names the version that the aggregator wants."""
    registration = _registration("Unit of an old version")
    with pytest.raises(VersionRefused) as refusal:
        await _dial(aggregator, evolve(registration, engine_version="0.0.1"))
    assert VERSION.rpartition(".")[2] in refusal.value.wanted


async def test_a_second_engine_with_the_same_id_is_refused(aggregator: RealAggregator) -> None:
    """While an engine is connected, another one of its name is refused, and the first stays."""
    async with running_unit(aggregator, "Unit with a twin") as unit:
        with pytest.raises(AlreadyConnected):
            await _dial(aggregator, _registration("Unit with a twin"))
        assert await unit.api.state() == "ready"
        assert unit.runner.statistics().links == 1


def _registration(name: str) -> em.RegisterEngineMsg:
    engine = SimulatedEngine(name=name, seed=1)
    return engine.create_register_engine_msg()


async def _dial(aggregator: RealAggregator, registration: em.RegisterEngineMsg) -> None:
    handlers = SimulatedEngine(name=registration.uod_name, seed=1)
    dispatcher = EngineDispatcher("127.0.0.1", aggregator.port, handlers=handlers)
    with trio.fail_after(CONNECT_S):
        await dispatcher.dial(registration, Timing())


def _method_and_state(unit: RunningUnit) -> Any:
    return lambda: unit.api.of_unit("method-and-state")


def _run_log(unit: RunningUnit) -> Any:
    return lambda: unit.api.of_unit("run_log")


def _is_at(line_id: str, *, behind: Sequence[str]) -> Any:
    def is_at(answer: Any) -> bool:
        state = answer["state"]
        executed, started = state["executed_line_ids"], state["started_line_ids"]
        return set(executed) >= set(behind) and started == [line_id]

    return is_at


def _ticks(unit: RunningUnit) -> Any:
    async def ask() -> list[float]:
        return _all_ticks(await unit.api.of_unit("plot_log"))

    return ask


def _all_ticks(plot_log: Any) -> list[float]:
    return sorted({v["tick_time"] for e in plot_log["entries"].values() for v in e["values"]})


def _assert_in_order(plot_log: Any) -> None:
    for name, entry in plot_log["entries"].items():
        # Delivery is at least once. A sample whose answer was lost with the link is sent again, and
        # the aggregator, which no longer knows it, stores it again. It is the same sample.
        stored = [(value["tick_time"], value.get("value")) for value in entry["values"]]
        once = [later for earlier, later in pairwise([(0.0, None), *stored]) if earlier != later]
        ticks = [tick for tick, _ in once]
        assert all(a < b for a, b in pairwise(ticks)), f"{name}: {ticks}"


def _assert_no_hole(plot_log: Any, down: float, up: float) -> None:
    # Run Time changes with every tick of the engine, so each stored sample has it.
    ticks = [value["tick_time"] for value in plot_log["entries"]["Run Time"]["values"]]
    assert ticks[0] < down
    assert ticks[-1] > up
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    assert max(gaps) <= GAP_S_MAX, f"gaps {gaps}"


def _assert_holds_what_was_sampled(
    plot_log: Any, engine: NotingEngine, down: float, up: float
) -> None:
    """Check that each tag has exactly what was sampled in the outage, by the rule of the data log.

    What was sampled after `down` was stored only after the aggregator's return. Whether the first
    of these is stored depends on the sample before; all others follow from the first.
    """
    anchor = next(tick for tick in _all_ticks(plot_log) if tick > down)
    sampled = {max(tag.tick_time for tag in sample) for sample in engine.samples}
    assert anchor in sampled
    assert anchor < down + GAP_S_MAX
    expected: dict[str, list[tuple[float, object]]] = {name: [] for name in plot_log["entries"]}
    for tick, tags in engine.stored_after(anchor):
        for tag in tags:
            if tick <= up and tag.name in expected:
                expected[tag.name].append((tick, tag.value))
    # Without a link, samples are 1.2 s apart, and each of them is stored.
    assert len(expected["Run Time"]) >= (OUTAGE_S - GAP_S_MAX) / 1.3
    stored = {
        name: [(v["tick_time"], v["value"]) for v in e["values"] if anchor < v["tick_time"] <= up]
        for name, e in plot_log["entries"].items()
    }
    assert stored == expected


async def _assert_archive_holds_the_outage(
    unit: RunningUnit, run_id: str, down: float, up: float
) -> None:
    plot_log = await unit.api.get(f"recent_runs/{run_id}/plot_log")
    _assert_no_hole(plot_log, down, up)
    _assert_holds_what_was_sampled(plot_log, unit.engine, down, up)
    content = (await unit.api.get(f"recent_runs/{run_id}/csv_json"))["csv_content"]
    rows = [row for row in csv.reader(content.splitlines()) if row and not row[0].startswith("#")]
    header, *samples = rows
    assert len(samples) == len(_all_ticks(plot_log))  # one row for each moment
    column = header.index("Run Time [s]")
    outage = [
        value["value"]
        for value in plot_log["entries"]["Run Time"]["values"]
        if down <= value["tick_time"] <= up
    ]
    assert len(outage) >= int(OUTAGE_S / GAP_S_MAX)
    assert {str(value) for value in outage} <= {row[column] for row in samples}
