"""`PlainEngine`: a unit made of functions, a method of commands, and runs with their log."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock as Clock

from trio_runner import CommandError, EngineDispatcher, EngineRunner, PlainEngine
from trio_runner.protocol import ErrorMessage, MessageBase, SuccessMessage, decode, encode
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

EPOCH = 1.7e9


class Pump:
    """A pump that notes what it was told, and when (s of virtual time)."""

    def __init__(self) -> None:
        self.speed, self.valve = 0.0, "Closed"
        self.told: list[tuple[str, object, float]] = []

    def note(self, name: str, value: object = None) -> None:
        self.told.append((name, value, trio.current_time()))

    def run_at(self, percent: float) -> None:
        """Run at this speed.

        What follows is not for the page.
        """
        self.note("run_at", percent)
        self.speed = percent

    def set_valve(self, name: str) -> None:
        self.note("set_valve", name)
        self.valve = name

    async def rinse(self) -> None:
        """Rinse for 10 s."""
        self.note("rinse")
        await trio.sleep(10)

    def fail(self) -> None:
        raise CommandError("The pump is dry")

    def break_down(self) -> None:
        raise OSError("no such device")


def engine_of(pump: Pump) -> PlainEngine:
    engine = PlainEngine("Pump", computer_name="pc", clock=lambda: EPOCH + trio.current_time())
    engine.add_reading(
        "Speed", lambda: pump.speed, "%", digits=1, between=(0, 100), enter=pump.run_at
    )
    engine.add_reading(
        "Valve", lambda: pump.valve, choices=("Open", "Closed"), enter=pump.set_valve
    )
    engine.add_reading("Level", lambda: 0.5, digits=1)
    engine.add_command("Rinse", pump.rinse)
    engine.add_command("Label", lambda text: pump.note("label", text))
    engine.add_command("Fail", pump.fail)
    engine.add_command("Break down", pump.break_down)
    engine.add_command("Wait", trio.sleep, "s", between=(0, 100))
    engine.add_command("Stop", engine.stop_run)
    engine.add_plot("Speed", "Level")
    return engine


@define
class Bench:
    """A pump at an aggregator."""

    pump: Pump
    engine: PlainEngine
    aggregator: Aggregator
    lines: list[str] = field(factory=list)

    async def press(self, button: str) -> MessageBase:
        return await self._call(am.ExecuteControlCommandMsg(name=button))

    async def enter(self, pcode: str) -> MessageBase:
        return await self._call(am.InjectCodeMsg(pcode=pcode))

    async def save(self, *lines: str) -> MessageBase:
        numbered = [mdl.MethodLine(id=f"{n}", content=c) for n, c in enumerate(lines)]
        return await self._call(am.MethodMsg(method=mdl.Method(version=1, lines=numbered)))

    async def cancel(self, exec_id: str) -> MessageBase:
        return await self._call(am.CancelMsg(exec_id=exec_id))

    async def _call(self, message: am.AggregatorMessage) -> MessageBase:
        return await self.aggregator.call("pc_Pump", message)

    def log(self) -> list[mdl.RunLogLine]:
        run_id = self.engine.current_run_id
        assert run_id is not None
        return self.engine.create_runlog_msg(run_id).runlog.lines

    def state(self) -> mdl.MethodState:
        return self.engine.create_method_state_msg().method_state


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Run a pump's engine and its runner beside an aggregator."""
    pump, aggregator = Pump(), Aggregator()
    engine = engine_of(pump)
    async with trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(handlers=engine, open_stream=aggregator.in_memory(nursery))
        await nursery.start(engine.run_commands)
        await nursery.start(EngineRunner(dispatcher, engine, engine, clock=engine.clock).run)
        await trio.sleep(1)
        yield Bench(pump, engine, aggregator)
        nursery.cancel_scope.cancel()


async def test_a_unit_is_described_from_its_functions(autojump_clock: Clock) -> None:
    """Entry field, choice, plot, validators and docstrings survive the way over the wire."""
    info = engine_of(Pump()).create_uod_info()
    assert decode(encode(info)) == info
    kinds = {reading.tag_name: reading.discriminator for reading in info.readings}
    assert kinds == {
        "Run Time": "reading",
        "Speed": "reading_with_entry",
        "Valve": "reading_with_choice",
        "Level": "reading",
    }
    (_, speed, valve, _) = info.readings
    assert (speed.entry_data_type, speed.valid_value_units) == ("float", ["%"])
    assert valve.command_options == {"Open": "Valve: Open", "Closed": "Valve: Closed"}
    documented = {command.name: command.docstring for command in info.commands}
    assert documented["Speed"] == "# Run at this speed.\nSpeed: 100 %"
    assert documented["Rinse"] == "# Rinse for 10 s.\nRinse"
    assert documented["Label"] == "Label: text"
    checked = {command.name: command.validator for command in info.uod_definition.commands}
    assert checked["Valve"] == r"RNAP-v1-^\s*(?:(?P<option>Open|Closed))\s*$"
    (plot,) = info.plot_configuration.sub_plots
    ends = [(axis.label, axis.y_min, axis.y_max) for axis in plot.axes]
    assert ends == [("Speed (%)", 0, 100), ("Level", 0, 100)]


async def test_tags_are_formatted_and_tell_the_run(autojump_clock: Clock) -> None:
    """`System State` and `Run Time` are kept; each reading has its own number of digits."""
    async with bench() as b:
        await b.press("Start")
        await trio.sleep(3725)  # 1 h 2 min 5 s
        shown = {tag.name: tag.value_formatted or tag.value for tag in b.engine.read_tags()}
        assert shown == {
            "Speed": "0.0 %",
            "Valve": "Closed",
            "Level": "0.5",
            "System State": "Running",
            "Run Time": "01:02:05",
        }


async def test_a_method_is_carried_out_line_by_line(autojump_clock: Clock) -> None:
    """A command takes its time before the next line begins, and the run log has everything."""
    async with bench() as b:
        await b.save("# Fill", "", "Valve: Open", "Speed: 40 %  # slowly", "Rinse", "Label: done")
        await b.press("Start")
        began = trio.current_time()
        await trio.sleep(5)
        assert b.state().executed_line_ids == ["0", "1", "2", "3"]
        assert b.state().started_line_ids == ["4"]
        assert b.state().locked_line_ids == ["0", "1", "2", "3", "4"]
        await trio.sleep(10)
        told = [(name, value, at - began) for name, value, at in b.pump.told]
        assert told == [
            ("set_valve", "Open", 0),
            ("run_at", 40.0, 0),
            ("rinse", None, 0),
            ("label", "done", 10),
        ]
        log = b.log()
        assert [line.command_name for line in log][2:] == ["Rinse", "Label: done"]
        assert [(line.end or 0) - line.start for line in log] == [0, 0, 10, 0]
        (speed, *_) = log[2].end_values
        assert speed.value == 40.0
        assert b.aggregator.engine().unit.run is not None  # it goes on until it is stopped


async def test_a_method_may_stop_its_run(autojump_clock: Clock) -> None:
    """The stored run log has what ran, and nothing after the stop is carried out."""
    async with bench() as b:
        await b.save("Label: a", "Stop", "Label: b")
        await b.press("Start")
        await trio.sleep(1)
        assert b.engine.current_run_id is None
        (run,) = b.aggregator.recent_runs
        assert [line.command_name for line in run.run_log.lines] == ["Label: a", "Stop"]
        assert not any(line.cancelled or line.failed for line in run.run_log.lines)
        assert [value for _, value, _ in b.pump.told] == ["a"]


async def test_stop_cancels_what_is_under_way(autojump_clock: Clock) -> None:
    """Both the method's command and an entered one are cancelled in the stored run log."""
    async with bench() as b:
        await b.save("Rinse", "Label: never")
        await b.press("Start")
        await b.enter("Wait: 60 s\nLabel: never")
        await trio.sleep(1)
        await b.press("Stop")
        await trio.sleep(100)
        (run,) = b.aggregator.recent_runs
        ended = [(line.command_name, line.cancelled) for line in run.run_log.lines]
        assert ended == [("Rinse", True), ("Wait: 60 s", True)]
        assert [name for name, _, _ in b.pump.told] == ["rinse"]


async def test_a_person_may_cancel_a_command_and_the_method_goes_on(autojump_clock: Clock) -> None:
    """The run log allows it; a second time there is nothing to cancel."""
    async with bench() as b:
        await b.save("Wait: 100 s", "Label: next")
        await b.press("Start")
        await trio.sleep(1)
        (waiting,) = b.log()
        assert waiting.cancellable
        assert isinstance(await b.cancel(waiting.id), SuccessMessage)
        await trio.sleep(1)
        assert [name for name, _, _ in b.pump.told] == ["label"]
        assert b.log()[0].cancelled
        answer = await b.cancel(waiting.id)
        assert isinstance(answer, ErrorMessage)
        assert answer.message == "It has ended"


@pytest.mark.parametrize(
    ("line", "told"),
    [("Fail", "Fail: The pump is dry"), ("Break down", "Break down: no such device")],
)
async def test_a_command_that_fails_ends_the_method_and_not_the_run(
    line: str, told: str, autojump_clock: Clock
) -> None:
    """The line is red, the error log says why, people are notified, and the engine works on."""
    async with bench() as b:
        await b.save(line, "Label: never")
        await b.press("Start")
        await trio.sleep(1)
        assert b.state().failed_line_ids == ["0"]
        assert b.log()[0].failed
        unit = b.aggregator.engine().unit
        assert [entry.message for entry in unit.error_log] == [told]
        assert unit.run is not None
        topics = [n.topic.value for n in b.aggregator.engine().notifications]
        assert topics.count("method_error") == 1
        await b.enter(line)  # this one fails too, and is not part of the method
        await b.enter("Label: on")
        await trio.sleep(1)
        assert [value for _, value, _ in b.pump.told] == ["on"]
        assert len(b.aggregator.engine().notifications) == len(topics)


@pytest.mark.parametrize(
    ("entered", "told"),
    [
        ("Dance", "There is no command 'Dance'"),
        ("Speed: 40", "Speed: '40' does not fit; write, for instance, 'Speed: 100 %'"),
        ("Speed", "Speed: something is missing; write, for instance, 'Speed: 100 %'"),
        ("Speed: 101 %", "Speed: 101 is not between 0 % and 100 %"),
        ("Valve: Ajar", "Valve: 'Ajar' does not fit; write, for instance, 'Valve: Open'"),
        ("Rinse: 3", "Rinse: '3' does not fit; write, for instance, 'Rinse'"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_is_refused_at_once(
    entered: str, told: str, autojump_clock: Clock
) -> None:
    """The person who enters it or saves it in a method hears so; nothing is carried out."""
    async with bench() as b:
        for answer in (await b.enter(f"Label: a\n{entered}"), await b.save("Label: a", entered)):
            assert isinstance(answer, ErrorMessage)
            assert answer.message == told
        await trio.sleep(1)
        assert b.pump.told == []


async def test_buttons_that_make_no_sense_are_refused(autojump_clock: Clock) -> None:
    """Start in a run, Stop and a new method at the wrong time, and Pause, which it lacks."""
    async with bench() as b:
        refused = [await b.press("Stop"), await b.press("Pause")]
        await b.press("Start")
        refused += [await b.press("Start"), await b.save("Rinse")]
        texts = [answer.message for answer in refused if isinstance(answer, ErrorMessage)]
        assert texts == [
            "No run is on",
            "Pump has no command Pause",
            "A run is already on",
            "A run is on: stop it to change the method",
        ]


async def test_an_engine_that_is_not_running_says_so() -> None:
    """A program that forgot `run_commands` hears so at the first Start, and no run is on then."""
    engine = engine_of(Pump())
    with pytest.raises(RuntimeError, match=r"this needs run_commands\(\)"):
        await engine.execute_control_command("Start")
    assert engine.current_run_id is None


def test_a_wrong_description_is_refused_where_it_is_made() -> None:
    """Names occur twice or nowhere, a range is none, or a function is none."""
    engine = engine_of(Pump())
    with pytest.raises(ValueError, match="there are two readings named 'Speed'"):
        engine.add_reading("Speed", lambda: 1.0)
    with pytest.raises(ValueError, match="there are two commands named 'Rinse'"):
        engine.add_command("Rinse", lambda: None)
    with pytest.raises(ValueError, match="no reading is named 'Sped'; there are 'Speed', 'Valve'"):
        engine.add_plot("Sped")
    with pytest.raises(ValueError, match="'A': between has to be the lowest and the highest, not"):
        engine.add_reading("A", lambda: 1.0, between=(5, 1))
    with pytest.raises(TypeError, match="the command 'B' needs a function, not None"):
        engine.add_command("B", None)  # type: ignore[arg-type]


def test_a_bounded_number_of_errors_is_kept_for_the_next_message() -> None:
    """Of more than 1,000 the oldest are dropped, and each is told once."""
    engine = PlainEngine()
    for number in range(1003):
        engine.report_error(f"error {number}", logging.WARNING)
    message = engine.create_error_log_msg()
    assert isinstance(message, em.ErrorLogMsg)
    assert len(message.log.entries) == 1000
    assert message.log.entries[0].message == "error 3"
    assert message.log.entries[0].severity == logging.WARNING
    assert engine.create_error_log_msg() is None
