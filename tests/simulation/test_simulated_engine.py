"""The simulated engine as the runner and people at the page meet it."""

import csv
import io
import re
import uuid

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.bench import EPOCH, Bench, bench, method, until, wall_clock
from trio_runner import CommandError, CommandHandlers, EventEmitter, MessageBuilder
from trio_runner.protocol import decode, encode
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.skid._archive import Archive
from trio_runner.simulation.skid._engine import MAX_WAITING, SimulatedEngine
from trio_runner.simulation.skid._skid import TAGS
from trio_runner.simulation.skid._tags import Tags

FEED = "Valve: Feed\nSet flow: 20 L/h"


def tags_of(message: em.TagsUpdatedMsg | None) -> dict[str, object]:
    """Return the values in a tag message."""
    return {} if message is None else {tag.name: tag.value for tag in message.tags}


def archive_rows(skid: Bench) -> list[dict[str, str]]:
    """Return the rows of the last run's archive."""
    archive = skid.engine.create_run_stopped_msg(skid.last_run_id).archive
    return list(csv.DictReader(io.StringIO(archive)))


# Its registration


async def test_the_engine_is_everything_that_the_runner_needs(autojump_clock: MockClock) -> None:
    """One object is message builder, emitter and command handlers: mypy checks the assignments."""
    engine = SimulatedEngine("Skid 1", clock=wall_clock)
    builder: MessageBuilder = engine
    emitter: EventEmitter = engine
    handlers: CommandHandlers = engine
    skid = Bench(engine)
    emitter.add_listener(skid)
    await handlers.execute_control_command("Start")
    assert builder.create_control_state_msg().control_state.is_running
    assert skid.events == [(0.0, "start", "")]


async def test_the_engine_registers_under_its_own_names(autojump_clock: MockClock) -> None:
    """It gives its names, its secret and the version of Open Pectus whose protocol it speaks."""
    engine = SimulatedEngine(
        "Skid 1",
        location="Lab 2",
        secret="s3cret",  # noqa: S106 - an example
        ignore_version_error=True,
        computer_name="host",
        clock=wall_clock,
    )
    message = engine.create_register_engine_msg()
    assert (message.uod_name, message.computer_name, message.location) == (
        "Skid 1",
        "host",
        "Lab 2",
    )
    assert (message.secret, message.ignore_version_error) == ("s3cret", True)
    assert message.engine_version == "0.1.1585"
    assert "s3cret" not in repr(engine)


async def test_every_message_is_fit_for_the_wire(autojump_clock: MockClock) -> None:
    """Each decodes to itself, in a run with all kinds of lines."""
    async with bench() as skid:
        engine = skid.engine
        await engine.inject_code("Mark: injected")
        queued = engine.create_queued_runlog_msg()
        assert queued is not None
        await skid.start(f"{FEED}\nWatch: Flow > 1 L/h\n    Mark: W\nBlock: B\n    Foo")
        await until(3)
        errors = engine.create_error_log_msg()
        updates = engine.create_tag_updates_msg(skid.last_run_id)
        assert errors is not None
        assert updates is not None
        messages: list[em.EngineMessage] = [
            queued,
            errors,
            updates,
            engine.create_uod_info(),
            engine.create_tag_updates_snapshot_msg(),
            engine.create_runlog_msg(skid.last_run_id),
            engine.create_control_state_msg(),
            engine.create_method_state_msg(),
            engine.create_method_msg(),
            engine.create_run_started_msg(skid.last_run_id, EPOCH),
            engine.create_run_stopped_msg(skid.last_run_id),
            engine.create_wpn_run_started_msg(),
        ]
        assert [decode(encode(message)) for message in messages] == messages


# The description of the unit


async def test_the_page_can_offer_every_command(autojump_clock: MockClock) -> None:
    """Each reading's commands pass the validators that the editor uses, and the examples too."""
    info = SimulatedEngine(clock=wall_clock).create_uod_info()
    definitions = info.uod_definition.commands + info.uod_definition.system_commands
    validators = {}
    for definition in definitions:
        assert definition.validator is not None
        assert definition.validator.startswith("RNAP-v1-")
        validators[definition.name] = definition.validator.removeprefix("RNAP-v1-")
    offered = ["Pump: 40.0 %", "Set flow: 0.5 L/min"]
    for reading in info.readings:
        offered += (reading.command_options or {}).values()
    for definition in definitions:
        assert definition.docstring is not None
        comment, example = definition.docstring.splitlines()[:2]
        assert comment.startswith("# ")
        offered.append(example)
    for code in offered:
        name, _, argument = code.partition(":")
        assert re.search(validators[name], argument), code


async def test_the_readings_the_plot_and_the_definitions_name_tags_that_exist(
    autojump_clock: MockClock,
) -> None:
    """Every tag that the page asks for is in the snapshot, with the same unit."""
    engine = SimulatedEngine(clock=wall_clock)
    info = engine.create_uod_info()
    units = {tag.name: tag.value_unit for tag in engine.create_tag_updates_snapshot_msg().tags}
    plot = info.plot_configuration
    axes = [axis for sub_plot in plot.sub_plots for axis in sub_plot.axes]
    named = [reading.tag_name for reading in info.readings]
    named += [name for axis in axes for name in axis.process_value_names]
    named += [region.process_value_name for region in plot.color_regions]
    named += plot.process_value_names_to_annotate + plot.x_axis_process_value_names
    assert set(named) <= set(units)
    assert len(plot.sub_plots) == 2
    assert {tag.name: tag.unit for tag in info.uod_definition.tags} == units
    for reading in info.readings:
        assert reading.valid_value_units is not None
        assert (units[reading.tag_name] or "") in reading.valid_value_units
    assert info.data_log_interval_seconds == 1.0


# Ticks and tags


async def test_ticks_come_at_their_instants_after_a_stall(autojump_clock: MockClock) -> None:
    """A stall of 0.25 s costs two ticks, and the next one is on time."""
    seen: list[float] = []

    def clock() -> float:
        seen.append(round(trio.current_time(), 3))
        return wall_clock()

    engine = SimulatedEngine(clock=clock)
    seen.clear()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await trio.sleep(0.22)
        autojump_clock.jump(0.25)  # 0.22 to 0.47: the tick of 0.3 is late, that of 0.4 is left out
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    assert seen == [0.1, 0.2, 0.47, 0.5, 0.6]


async def test_only_tags_that_have_changed_are_told(autojump_clock: MockClock) -> None:
    """The first message has all tags, one right after it none, and the next those that changed."""
    async with bench() as skid:
        engine = skid.engine
        assert set(tags_of(engine.create_tag_updates_msg(None))) == {str(tag.name) for tag in TAGS}
        assert engine.create_tag_updates_msg(None) is None
        await until(0.1)
        changed = set(tags_of(engine.create_tag_updates_msg(None)))
        assert changed <= {"Inlet pressure", "Tank", "Conductivity"}
        assert changed
        await until(0.2)
        assert set(tags_of(engine.create_tag_updates_snapshot_msg())) == {str(t.name) for t in TAGS}
        assert engine.create_tag_updates_msg(None) is None


async def test_a_tag_is_stamped_with_the_tick_of_its_change(autojump_clock: MockClock) -> None:
    """The stamp is the wall clock's time, not Trio's; times of a run are shown as on a clock."""
    async with bench() as skid:
        await skid.command("Start")
        await until(2.0)
        tags = {tag.name: tag for tag in skid.engine.create_tag_updates_snapshot_msg().tags}
        assert tags["Run Time"].tick_time == pytest.approx(EPOCH + 2.0)
        assert tags["Run Time"].value_formatted == "00:00:02"
        assert tags["Clock"].value_formatted == "22:13:22"
        assert tags["System State"].tick_time == EPOCH
        assert tags["Run Id"].value == skid.last_run_id


async def test_a_run_is_determined_by_seed_and_clock(autojump_clock: MockClock) -> None:
    """The same seed gives the same archive, run log and ids; another seed gives others."""
    told: list[em.RunStoppedMsg] = []
    for seed in (1, 1, 2):
        engine = SimulatedEngine(seed=seed, clock=lambda: EPOCH + trio.current_time() % 100)
        skid = Bench(engine)
        engine.add_listener(skid)
        await trio.sleep_until(100 * (len(told) + 1))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await skid.start(f"{FEED}\nWait: 5 s")
            await trio.sleep(10.05)
            nursery.cancel_scope.cancel()
        await skid.command("Stop")
        told.append(engine.create_run_stopped_msg(skid.last_run_id))
    assert told[0].run_id == told[1].run_id
    assert [line.id for line in told[0].runlog.lines] == [line.id for line in told[1].runlog.lines]
    assert [line.command_name for line in told[0].runlog.lines] == [*FEED.split("\n"), "Wait: 5 s"]
    assert told[0].run_id != told[2].run_id
    assert told[0].archive != told[2].archive


async def test_each_run_has_its_own_uuid(autojump_clock: MockClock) -> None:
    """This holds even if two runs begin at the same instant."""
    engine = SimulatedEngine(clock=wall_clock)
    skid = Bench(engine)
    engine.add_listener(skid)
    ids = set()
    for _ in range(5):
        await skid.command("Start")
        ids.add(skid.last_run_id)
        await skid.command("Stop")
    assert len(ids) == 5
    assert {uuid.UUID(run_id).version for run_id in ids} == {4}


async def test_a_cancelled_engine_leaves_nothing_and_can_run_again(
    autojump_clock: MockClock,
) -> None:
    """The open run stands still until the engine runs again."""
    engine = SimulatedEngine(clock=wall_clock)
    await engine.execute_control_command("Start")
    for _ in range(2):
        with trio.move_on_after(1.05):
            await engine.run()
        await trio.sleep(10)
    # Ten ticks each time; the 10 s in between do not count.
    assert engine.tags.value("Run Time") == pytest.approx(2.0)


# Control commands


async def test_start_begins_a_run(autojump_clock: MockClock) -> None:
    """Listeners hear the run's id, and from the same moment on the tags show it."""
    async with bench() as skid:
        await until(1)
        await skid.command("Start")
        assert skid.events == [(1.05, "start", "")]
        assert (skid.tag("Run Id"), skid.tag("System State")) == (skid.last_run_id, "Running")
        control = skid.engine.create_control_state_msg().control_state
        assert (control.is_running, control.is_holding, control.is_paused) == (True, False, False)


@pytest.mark.parametrize(
    ("before", "command", "message"),
    [
        (["Start"], "Start", "Start is not possible: a run is on"),
        ([], "Stop", "no run is on"),
        ([], "Pause", "no run is on"),
        ([], "Unpause", "no run is on"),
        ([], "Hold", "no run is on"),
        ([], "Unhold", "no run is on"),
        ([], "Restart", "no run is on"),
        (["Start", "Pause"], "Pause", "the run is paused"),
        (["Start"], "Unpause", "the run is not paused"),
        (["Start", "Hold"], "Hold", "the run is held"),
        (["Start"], "Unhold", "the run is not held"),
        (["Start", "Pause"], "Start", "a run is on"),
    ],
)
async def test_a_command_that_is_not_possible_is_refused(
    before: list[str], command: str, message: str, autojump_clock: MockClock
) -> None:
    """The command is the person's mistake, and it changes nothing."""
    async with bench() as skid:
        for name in before:
            await skid.command(name)
        state, events = skid.engine.create_control_state_msg(), list(skid.events)
        with pytest.raises(CommandError, match=message) as error:
            await skid.command(command)
        assert error.value.caller_error
        assert (skid.engine.create_control_state_msg(), skid.events) == (state, events)


async def test_an_unknown_control_command_is_refused_and_logged(
    autojump_clock: MockClock,
) -> None:
    """The error log has an entry of severity 40, once."""
    async with bench() as skid:
        with pytest.raises(CommandError, match="Unknown command 'Nonsense'"):
            await skid.command("Nonsense")
        message = skid.engine.create_error_log_msg()
        assert message is not None
        (entry,) = message.log.entries
        assert (entry.message, entry.severity) == ("Unknown command: 'Nonsense'", 40)
        assert skid.engine.create_error_log_msg() is None


async def test_pause_makes_the_skid_safe_and_stops_the_methods_time(
    autojump_clock: MockClock,
) -> None:
    """Unpause restores the outputs; a wait is longer by exactly the pause, to the tick."""
    async with bench() as skid:
        await skid.start(f"{FEED}\nWait: 2 s\nMark: A")  # the wait begins at 0.3
        await until(1.0)
        await skid.command("Pause")
        assert skid.tag("System State") == "Paused"
        assert (skid.tag("Valve"), skid.tag("Flow setpoint")) == ("Recirculate", 0.0)
        await until(11.0)
        assert skid.engine.skid.state.pump_percent == 0.0
        assert skid.tag("Process Time") == pytest.approx(1.0)
        assert skid.tag("Run Time") == pytest.approx(11.0)
        await skid.command("Unpause")
        assert (skid.tag("Valve"), skid.tag("Flow setpoint")) == ("Feed", 20.0)
        await until(12.3)
        assert skid.log()[2:] == [("Wait: 2 s", 0.3, 12.3), ("Mark: A", 12.3, 12.3)]
        assert [event[1] for event in skid.events] == ["start", "pause", "unpause"]


async def test_hold_leaves_the_skid_as_it_is_and_stops_the_methods_time(
    autojump_clock: MockClock,
) -> None:
    """The tank goes on filling; listeners hear nothing of it."""
    async with bench() as skid:
        await skid.start(f"{FEED}\nWait: 2 s\nMark: A")
        await until(1.0)
        await skid.command("Hold")
        assert skid.engine.create_control_state_msg().control_state.is_holding
        await until(11.0)
        assert (skid.tag("System State"), skid.tag("Valve")) == ("Holding", "Feed")
        assert skid.engine.skid.state.tank_kg > 0.05  # 10 s at 20 L/h are 0.0556 kg
        await skid.command("Unhold")
        await until(12.3)
        assert skid.log()[2:] == [("Wait: 2 s", 0.3, 12.3), ("Mark: A", 12.3, 12.3)]
        assert [event[1] for event in skid.events] == ["start"]


async def test_pause_takes_precedence_over_hold(autojump_clock: MockClock) -> None:
    """Each must be ended by its own command."""
    async with bench() as skid:
        await skid.start("Mark: A")
        states = []
        for name in ("Hold", "Pause", "Unhold", "Hold", "Unpause", "Unhold"):
            await skid.command(name)
            states.append(skid.tag("System State"))
        assert states == ["Holding", "Paused", "Paused", "Paused", "Holding", "Running"]


async def test_stop_ends_the_run_with_a_complete_run_log(autojump_clock: MockClock) -> None:
    """Open lines end before listeners hear of it; the skid is safe, and the tags are empty."""
    async with bench() as skid:
        await skid.start(f"{FEED}\nBlock: B\n    Wait: 1 h")
        await until(2)
        await skid.command("Stop")
        stopped = skid.engine.create_run_stopped_msg(skid.last_run_id)
        assert all(line.end is not None for line in stopped.runlog.lines)
        assert stopped.runlog.lines[-1].cancelled is True
        assert stopped.method_state.executed_line_ids == ["0", "1", "2", "3"]
        assert skid.events[-1] == (2.05, "stop", "")
        assert [skid.tag(name) for name in ("Run Id", "Block", "Archive filename")] == [None] * 3
        assert (skid.tag("System State"), skid.tag("Valve")) == ("Stopped", "Recirculate")
        await until(30)
        assert skid.engine.skid.state.flow_l_h == pytest.approx(0, abs=1e-9)
        assert skid.tag("Run Time") == pytest.approx(2.0)


async def test_restart_ends_the_run_and_begins_another(autojump_clock: MockClock) -> None:
    """The method begins anew."""
    async with bench() as skid:
        await skid.start("Mark: A\nWait: 1 h")
        await until(1)
        first = skid.last_run_id
        await skid.command("Restart")
        assert skid.events == [(0.0, "start", ""), (1.05, "stop", ""), (1.05, "start", "")]
        assert skid.last_run_id != first
        assert skid.state().executed_line_ids == []
        await until(1.1)
        assert skid.log() == [("Mark: A", 1.1, 1.1)]


# Methods


async def test_a_method_may_be_nested_to_any_depth(autojump_clock: MockClock) -> None:
    """990 nested blocks are taken, told and run."""
    engine = SimulatedEngine()
    lines = [
        mdl.MethodLine(id=str(depth), content="    " * depth + "Block: A") for depth in range(990)
    ]
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.set_method(mdl.Method(version=1, lines=lines))
        await engine.execute_control_command("Start")
        await trio.sleep(200)
        state = engine.create_method_state_msg().method_state
        assert len(state.started_line_ids) == 990
        await engine.execute_control_command("Stop")
        nursery.cancel_scope.cancel()


async def test_a_method_is_kept_as_it_was_written(autojump_clock: MockClock) -> None:
    """A half-written line is no error until it is executed."""
    engine = SimulatedEngine(clock=wall_clock)
    written = method("Bloc: A\n      Wait\n: \n# todo", version=7)
    await engine.set_method(written)
    assert engine.create_method_msg().method == written
    assert engine.create_error_log_msg() is None


async def test_an_empty_method_becomes_one_empty_line(autojump_clock: MockClock) -> None:
    """The page needs a line to write in."""
    engine = SimulatedEngine(clock=wall_clock)
    await engine.set_method(method("Mark: A"))
    (line,) = engine.create_method_msg().method.lines
    await engine.set_method(mdl.Method(version=2, lines=[]))
    (line,) = engine.create_method_msg().method.lines
    assert line.content == ""
    assert engine.create_method_msg().method.version == 2


async def test_lines_that_have_not_begun_can_be_edited_in_a_run(autojump_clock: MockClock) -> None:
    """Lines may be edited, removed and added, even in an open block."""
    async with bench() as skid:
        await skid.start("Mark: A\nBlock: B\n    Wait: 1 s\n    Mark: C\nMark: D")
        await until(0.5)
        lines = method("Mark: A\nBlock: B\n    Wait: 1 s\n    Mark: X\n    End block").lines
        lines += [mdl.MethodLine(id="new", content="Mark: Y")]
        await skid.engine.set_method(mdl.Method(version=2, lines=lines))
        await until(2)
        assert [name for name, _, _ in skid.log()] == [
            "Mark: A",
            "Block: B",
            "Wait: 1 s",
            "Mark: X",
            "End block",
            "Mark: Y",
        ]
        assert skid.state().content_locked_line_ids == ["new"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("0 Mark: Z|1 Wait: 1 h|2 Mark: C", "The line 'Mark: A' has begun and cannot be edited"),
        ("0 Mark: A|1 Wait: 2 h|2 Mark: C", "The line 'Wait: 1 h' has begun and cannot be edited"),
        ("0 Mark: A|2 Mark: C", "The line 'Wait: 1 h' has begun and cannot be removed"),
        ("1 Wait: 1 h|0 Mark: A|2 Mark: C", "Lines that have begun cannot change places"),
        (
            "9 Mark: N|0 Mark: A|1 Wait: 1 h",
            "'Mark: N' cannot go before 'Mark: A', which has begun",
        ),
        ("9 Block: N|0     Mark: A|1 Wait: 1 h", "'Mark: A' has begun and cannot be edited"),
        ("0 Mark: A|1 Wait: 1 h|1 Mark: N", "Two lines of the method have the same id"),
    ],
)
async def test_an_edit_of_what_has_begun_is_refused(
    edit: str, message: str, autojump_clock: MockClock
) -> None:
    """The error names the line, the method stays, the run goes on."""
    async with bench() as skid:
        await skid.start("Mark: A\nWait: 1 h\nMark: C")
        await until(1)
        before = skid.engine.create_method_msg()
        lines = [line.split(" ", 1) for line in edit.split("|")]
        new = mdl.Method(
            version=2,
            lines=[mdl.MethodLine(id=id_, content=text) for id_, text in lines],
        )
        with pytest.raises(CommandError, match=message):
            await skid.engine.set_method(new)
        assert skid.engine.create_method_msg() == before
        assert skid.tag("System State") == "Running"


async def test_nothing_can_be_added_to_a_block_that_has_ended(autojump_clock: MockClock) -> None:
    """A line that is added there would never be carried out."""
    async with bench() as skid:
        await skid.start("Block: B\n    End block\nWait: 1 h")
        await until(1)
        edited = method("Block: B\n    End block\nWait: 1 h")
        late = mdl.MethodLine(id="9", content="    Mark: late")
        edited.lines.insert(2, late)
        with pytest.raises(CommandError, match="'Block: B' has ended, 'Mark: late' cannot go in"):
            await skid.engine.set_method(edited)


async def test_after_a_run_any_edit_is_possible(autojump_clock: MockClock) -> None:
    """The colours of the last run stay until the method is edited."""
    async with bench() as skid:
        await skid.start("Mark: A")
        await until(1)
        await skid.command("Stop")
        assert skid.state().executed_line_ids == ["0"]
        await skid.engine.set_method(method("Mark: B"))
        assert skid.state().executed_line_ids == []


# Injected code


async def test_injected_code_runs_beside_the_method(autojump_clock: MockClock) -> None:
    """It has lines in the run log, but is not part of the method."""
    async with bench() as skid:
        await skid.start("Wait: 1 h")
        await until(0.5)
        await skid.engine.inject_code("Mark: I\nWait: 1 s\nValve: Drain")
        await until(1.7)
        assert skid.log()[1:] == [
            ("Mark: I", 0.6, 0.6),
            ("Wait: 1 s", 0.7, 1.7),
            ("Valve: Drain", 1.7, 1.7),
        ]
        assert skid.tag("Valve") == "Drain"
        assert skid.state().injected_line_ids == ["-1", "-2", "-3"]


async def test_code_injected_before_a_run_waits_for_it(autojump_clock: MockClock) -> None:
    """It is shown as queued, and begins at Start."""
    async with bench() as skid:
        await skid.engine.inject_code("Mark: I")
        await until(5)
        message = skid.engine.create_queued_runlog_msg()
        assert message is not None
        assert [(line.id, line.command_name) for line in message.runlog.lines] == [
            ("QueuedCommand", "Mark: I")
        ]
        await skid.command("Start")
        assert skid.engine.create_queued_runlog_msg() == message
        await until(5.1)
        assert skid.engine.create_queued_runlog_msg() is None
        assert skid.log() == [("Mark: I", 5.1, 5.1)]


async def test_code_injected_in_a_pause_waits_for_its_end(autojump_clock: MockClock) -> None:
    """It is shown as queued meanwhile, and is dropped if the run ends."""
    async with bench() as skid:
        await skid.command("Start")
        await skid.command("Pause")
        await skid.engine.inject_code("Mark: I")
        await until(5)
        assert skid.engine.create_queued_runlog_msg() is not None
        await skid.command("Unpause")
        await until(5.1)
        assert skid.tag("Mark") == "I"
        await skid.command("Pause")
        await skid.engine.inject_code("Mark: J")
        await skid.command("Stop")
        assert skid.engine.create_queued_runlog_msg() is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Foo: 3", "Unknown command 'Foo'"),
        ("Mark: A\nPump: x", "Pump: 'x' does not fit"),
        ("    Mark: A", "indentation"),
    ],
)
async def test_injected_code_that_is_wrong_is_refused(
    code: str, message: str, autojump_clock: MockClock
) -> None:
    """No part of it runs, and the method gets no error."""
    async with bench() as skid:
        await skid.command("Start")
        with pytest.raises(CommandError, match=message):
            await skid.engine.inject_code(code)
        await until(1)
        assert skid.log() == []
        assert skid.tag("Method Status") == "OK"


async def test_injected_code_that_fails_leaves_the_method_alone(autojump_clock: MockClock) -> None:
    """The run log and the error log show it, its other lines do not run, and the run goes on."""
    async with bench() as skid:
        await skid.start("Wait: 1 s\nMark: A")
        await skid.engine.inject_code("Pump: 140 %\nMark: never")
        await until(2)
        assert skid.log_line("Pump: 140 %").failed is True
        assert skid.tag("Mark") == "A"
        assert skid.errors() == [
            "Error in injected code 'Pump: 140 %': Pump: 140 % is not between 0 and 100 %"
        ]
        assert [event[1] for event in skid.events] == ["start"]


async def test_the_queue_of_injected_code_is_bounded(autojump_clock: MockClock) -> None:
    """The person hears that too much waits."""
    engine = SimulatedEngine(clock=wall_clock)
    for _ in range(MAX_WAITING):
        await engine.inject_code("Mark: A")
    with pytest.raises(CommandError, match="100 commands are already waiting"):
        await engine.inject_code("Mark: A")


async def test_the_commands_of_the_skid_reach_it(autojump_clock: MockClock) -> None:
    """A pump ends flow control, a tank is emptied, a filter is changed, a counter counts."""
    async with bench() as skid:
        await skid.start(f"{FEED}\nWait: 30 s\nPump: 40 %\nIncrement run counter\nNotify: full")
        await until(31)
        state = skid.engine.skid.state
        assert (state.pump_percent, skid.tag("Flow setpoint")) == (40.0, 0.0)
        assert skid.tag("Run Counter") == 1
        assert skid.events[-1][1:] == ("notify", "full")
        filtered_l, tank_kg = state.filtered_l, state.tank_kg
        await skid.engine.inject_code("Reset tank\nChange filter")
        await until(31.3)
        assert skid.engine.skid.state.tank_kg < 0.01 < 0.1 < tank_kg
        assert skid.engine.skid.state.filtered_l < 0.01 < 0.1 < filtered_l


# The records of a run


async def test_run_log_lines_carry_the_readings(autojump_clock: MockClock) -> None:
    """The lines carry the readings that the page shows, at the start and at the end."""
    async with bench() as skid:
        await skid.start(f"{FEED}\nWait: 60 s")
        names = [reading.tag_name for reading in skid.engine.create_uod_info().readings]
        await until(61)
        line = skid.log_line("Wait: 60 s")
        assert [tag.name for tag in line.start_values] == names
        flow = {tag.name: tag.value for tag in line.end_values}["Flow"]
        assert flow == pytest.approx(20, abs=0.3)
        assert {tag.name: tag.value for tag in line.start_values}["Flow"] != flow


async def test_the_archive_has_a_row_for_every_second(autojump_clock: MockClock) -> None:
    """The first row is at the first tick, the others at each full second of Run Time, in UTC."""
    async with bench() as skid:
        await skid.start('Mark: a "b", c')
        await until(60.5)
        await skid.command("Stop")
        rows = archive_rows(skid)
        run_times = [0.1, *range(1, 61)]
        assert [row["Run Time [s]"] for row in rows] == [f"{time_s:.5f}" for time_s in run_times]
        assert rows[1]["Datetime (UTC)"] == "2023-11-14 22:13:21+00:00"
        assert rows[1]["Mark"] == 'a "b", c'
        assert float(rows[5]["Conductivity [mS/cm]"]) == pytest.approx(0.2, abs=0.05)
        stopped = skid.engine.create_run_stopped_msg(skid.last_run_id)
        assert stopped.archive_filename == "archive-2023-11-14_221320.csv"


def test_rounding_makes_no_row_late_or_double() -> None:
    """A tick that misses the full second only by a rounding error counts as the second."""
    tags = Tags(TAGS)
    tags.reset(EPOCH)
    archive = Archive("a.csv", interval_s=1.0)
    for run_s in (0.1, 0.9999999999, 1.1, 1.9999999999, 2.0999999999):
        archive.sample(run_s, EPOCH + run_s, tags)
    rows = csv.DictReader(io.StringIO(archive.text()))
    assert [row["Datetime (UTC)"][11:-6] for row in rows] == [
        "22:13:20.100000",
        "22:13:21",
        "22:13:22",
    ]


def test_a_full_archive_keeps_every_second_row() -> None:
    """However long the run is, the archive spans it: here at most 4 rows, for 9 s at 1 s."""
    tags = Tags(TAGS)
    tags.reset(EPOCH)
    archive = Archive("a.csv", interval_s=1.0, max_rows=4)
    for second in range(9):
        tags.set({"Run Time": float(second)}, EPOCH + second)
        archive.sample(float(second), EPOCH + second, tags)
    rows = list(csv.DictReader(io.StringIO(archive.text())))
    # Rows 0 1 2 3 fill it, so 0 2 remain; 4 6 fill it again, so 0 4 remain; then every 4 s: 8.
    assert [float(row["Run Time [s]"]) for row in rows] == [0, 4, 8]


async def test_messages_of_another_run_are_not_given_out(autojump_clock: MockClock) -> None:
    """Asking for a run that the engine does not have is the caller's bug."""
    async with bench() as skid:
        await skid.command("Start")
        with pytest.raises(LookupError, match="no run with id x"):
            skid.engine.create_runlog_msg("x")


# Notifications and the equipment


async def test_notifications_say_what_happened(autojump_clock: MockClock) -> None:
    """The title is the unit's name, and the time is in milliseconds."""
    async with bench() as skid:
        await skid.command("Start")
        engine = skid.engine
        messages = [
            engine.create_wpn_run_started_msg(),
            engine.create_wpn_run_stopped_msg(),
            engine.create_wpn_run_paused_msg(),
            engine.create_wpn_block_started_msg("B1"),
            engine.create_wpn_notify_command_msg("hello"),
            engine.create_wpn_watch_activated_msg("Flow > 1 L/h"),
            engine.create_wpn_method_error_msg(),
            engine.create_wpn_network_error_msg(),
        ]
        assert [(str(m.topic), m.notification.body) for m in messages] == [
            ("run_start", "Run started 22:13 UTC."),
            ("run_stop", "Run which started 22:13 UTC has stopped."),
            ("run_pause", "Run has been paused."),
            ("block_start", 'Block "B1" is now running.'),
            ("notification_cmd", "hello"),
            ("watch_triggered", "Watch condition triggered: Flow > 1 L/h"),
            ("method_error", "Error in method. Run paused."),
            ("network_errors", "Connection between Open Pectus and equipment has been lost."),
        ]
        assert {m.notification.title for m in messages} == {"Filtration Skid"}
        assert messages[0].notification.timestamp == 1_700_000_000_000


async def test_lost_equipment_is_told_and_its_tags_stop_changing(autojump_clock: MockClock) -> None:
    """When the equipment is found again, the tags go on."""
    async with bench() as skid:
        await until(1)
        skid.engine.set_connection_status("Disconnected")
        skid.engine.create_tag_updates_msg(None)
        await until(2)
        assert skid.engine.create_tag_updates_msg(None) is None
        skid.engine.set_connection_status("Connected")
        await until(2.1)
        assert "Conductivity" in tags_of(skid.engine.create_tag_updates_msg(None))
        assert [event[1:] for event in skid.events] == [
            ("connection", "Disconnected"),
            ("connection", "Connected"),
        ]
