"""P-code as the simulated engine carries it out, in exact virtual time."""

import pytest
from trio.testing import MockClock

from tests.simulation.bench import bench, method, until
from trio_runner import CommandError


async def test_a_line_begins_at_every_tick(autojump_clock: MockClock) -> None:
    """Commands that take no time end when they begin; blank lines and comments take no tick."""
    async with bench() as skid:
        await skid.start("Mark: A\n\n# comment\nMark: B")
        await until(0.2)
        assert skid.log() == [("Mark: A", 0.1, 0.1), ("Mark: B", 0.2, 0.2)]
        assert skid.tag("Mark") == "B"


async def test_a_wait_lasts_to_the_exact_tick(autojump_clock: MockClock) -> None:
    """2 s are 20 ticks: from 0.1 to 2.1, when the next line begins."""
    async with bench() as skid:
        await skid.start("Wait: 2 s\nMark: A")
        await until(1.1)
        wait = skid.log_line("Wait: 2 s")
        assert wait.progress == pytest.approx(0.5, abs=1e-5)
        assert (wait.forcible, wait.cancellable) == (True, False)
        await until(2.0)
        assert skid.log() == [("Wait: 2 s", 0.1, None)]
        await until(2.1)
        assert skid.log() == [("Wait: 2 s", 0.1, 2.1), ("Mark: A", 2.1, 2.1)]
        assert skid.log_line("Wait: 2 s").progress == 1.0


async def test_rounding_makes_no_wait_a_tick_longer(autojump_clock: MockClock) -> None:
    """Of waits of 0.1 s, 0.2 s ... 4.0 s, one after the other, each ends at its own tick."""
    async with bench() as skid:
        await skid.start("\n".join(f"Wait: {n / 10} s" for n in range(1, 41)))
        await until(0.1 + 0.1 * 820)  # 1 + 2 + ... + 40 ticks
        assert [end for _, _, end in skid.log()] == [
            round(0.1 + 0.1 * n * (n + 1) / 2, 3) for n in range(1, 41)
        ]


@pytest.mark.parametrize(("wait", "end_s"), [("0.1 min", 6.1), ("0.01 h", 36.1), ("0 s", 0.2)])
async def test_a_wait_may_be_given_in_minutes_and_hours(
    wait: str, end_s: float, autojump_clock: MockClock
) -> None:
    """0.1 min is 6 s, 0.01 h is 36 s, and 0 s is over at the next tick."""
    async with bench() as skid:
        await skid.start(f"Wait: {wait}")
        await until(end_s)
        assert skid.log() == [(f"Wait: {wait}", 0.1, end_s)]


async def test_forcing_a_wait_ends_it_at_the_next_tick(autojump_clock: MockClock) -> None:
    """The run log shows that it was forced."""
    async with bench() as skid:
        await skid.start("Wait: 1 h\nMark: A")
        await until(0.5)
        await skid.engine.force(skid.log_line("Wait: 1 h").id)
        await until(0.6)
        wait = skid.log_line("Wait: 1 h")
        assert (wait.forced, wait.cancelled, wait.progress) == (True, False, 1.0)
        assert skid.log() == [("Wait: 1 h", 0.1, 0.6), ("Mark: A", 0.6, 0.6)]
        with pytest.raises(CommandError, match="'Wait: 1 h' cannot be forced"):
            await skid.engine.force(wait.id)


async def test_blocks_nest_and_end_block_ends_the_innermost(autojump_clock: MockClock) -> None:
    """Lines after End block are passed over; the tags Block and Block Time follow."""
    text = """\
Block: A
    Block: B
        Wait: 1 s
        End block
        Mark: never
    Wait: 1 s
    End block
Mark: C"""
    async with bench() as skid:
        await skid.start(text)
        await until(0.2)
        assert skid.tag("Block") == "B"
        await until(1.2)
        assert skid.tag("Block Time") == pytest.approx(1.0)  # B began at 0.2
        await until(1.3)
        assert skid.tag("Block") == "A"
        assert skid.tag("Block Time") == pytest.approx(1.2)  # A began at 0.1
        await until(2.5)
        assert skid.log() == [
            ("Block: A", 0.1, 2.4),
            ("Block: B", 0.2, 1.3),
            ("Wait: 1 s", 0.3, 1.3),
            ("End block", 1.3, 1.3),
            ("Wait: 1 s", 1.4, 2.4),
            ("End block", 2.4, 2.4),
            ("Mark: C", 2.5, 2.5),
        ]
        assert skid.tag("Block") is None
        assert [event for event in skid.events if event[1] == "block"] == [
            (0.1, "block", "A"),
            (0.2, "block", "B"),
        ]


async def test_a_block_lasts_until_a_watch_in_it_ends_it(autojump_clock: MockClock) -> None:
    """The block's current wait ends with it, and so does the watch."""
    text = """\
Block: A
    Watch: Block Time > 1 s
        End block
        Mark: never
    Wait: 1 h
Mark: C"""
    async with bench() as skid:
        await skid.start(text)
        await until(1.4)
        # The block began at 0.1: Block Time is 1.1 at 1.2, where the watch comes true and ends it;
        # the method's strand comes before the watch's, so it goes on at the next tick.
        assert skid.log() == [
            ("Block: A", 0.1, 1.2),
            ("Watch: Block Time > 1 s", 0.2, 1.2),
            ("Wait: 1 h", 0.3, 1.2),
            ("End block", 1.2, 1.2),
            ("Mark: C", 1.3, 1.3),
        ]
        assert skid.log_line("Wait: 1 h").cancelled is True
        assert skid.log_line("Watch: Block Time > 1 s").cancelled is False


async def test_a_block_without_end_waits(autojump_clock: MockClock) -> None:
    """It does not end with its last line."""
    async with bench() as skid:
        await skid.start("Block: A\n    Mark: B\nMark: C")
        await until(60)
        assert skid.log() == [("Block: A", 0.1, None), ("Mark: B", 0.2, 0.2)]


async def test_a_watch_does_not_hold_up_the_method(autojump_clock: MockClock) -> None:
    """Its body runs once, beside the lines after it, when the condition has come true."""
    text = "Watch: Run Time > 0.5 s\n    Mark: W\nWait: 2 s\nMark: C"
    async with bench() as skid:
        await skid.start(text)
        await until(0.5)
        watch = skid.log_line("Watch: Run Time > 0.5 s")
        assert (watch.end, watch.forcible, watch.cancellable) == (None, True, True)
        await until(2.2)
        assert skid.log() == [
            ("Watch: Run Time > 0.5 s", 0.1, 0.7),  # its body is over at 0.6, seen at 0.7
            ("Wait: 2 s", 0.2, 2.2),
            ("Mark: W", 0.6, 0.6),
            ("Mark: C", 2.2, 2.2),
        ]
        assert (0.6, "watch", "Run Time > 0.5 s") in skid.events


async def test_a_watch_can_be_forced(autojump_clock: MockClock) -> None:
    """Its body runs even though the condition is not true."""
    async with bench() as skid:
        await skid.start("Watch: Flow > 50 L/h\n    Mark: W")
        await until(0.5)
        await skid.engine.force(skid.log_line("Watch: Flow > 50 L/h").id)
        await until(0.6)
        assert skid.tag("Mark") == "W"
        assert skid.log_line("Watch: Flow > 50 L/h").forced is True


async def test_a_watch_can_be_cancelled_while_it_waits(autojump_clock: MockClock) -> None:
    """Its body never runs, even when the condition comes true."""
    async with bench() as skid:
        await skid.start("Watch: Run Time > 1 s\n    Mark: W")
        await until(0.5)
        watch = skid.log_line("Watch: Run Time > 1 s")
        await skid.engine.cancel(watch.id)
        await until(5)
        watch = skid.log_line("Watch: Run Time > 1 s")
        assert (watch.cancelled, watch.forced, watch.cancellable) == (True, False, False)
        assert skid.tag("Mark") == ""
        with pytest.raises(CommandError, match="cannot be cancelled"):
            await skid.engine.cancel(watch.id)


async def test_an_unknown_id_is_refused(autojump_clock: MockClock) -> None:
    """The errors of cancel and force name the id."""
    async with bench() as skid:
        await skid.start("Wait: 1 h")
        with pytest.raises(CommandError, match="no line with id 'x'"):
            await skid.engine.cancel("x")
        with pytest.raises(CommandError, match="no line with id 'x'"):
            await skid.engine.force("x")


async def test_a_pause_with_a_duration_ends_by_itself(autojump_clock: MockClock) -> None:
    """1 s from 0.1: the line ends and the next one begins at 1.1; Process Time stood still."""
    async with bench() as skid:
        await skid.start("Pause: 1 s\nMark: A")
        await until(1.0)
        assert (skid.tag("System State"), skid.log()) == ("Paused", [("Pause: 1 s", 0.1, None)])
        await until(1.1)
        assert skid.log() == [("Pause: 1 s", 0.1, 1.1), ("Mark: A", 1.1, 1.1)]
        assert skid.tag("Process Time") == pytest.approx(0.1)
        assert skid.events == [(0.0, "start", ""), (0.1, "pause", ""), (1.1, "unpause", "")]


@pytest.mark.parametrize(("line", "state"), [("Pause: 1 h", "Paused"), ("Hold: 1 h", "Holding")])
async def test_a_timed_pause_or_hold_can_be_cancelled(
    line: str, state: str, autojump_clock: MockClock
) -> None:
    """The run goes on at the next tick."""
    async with bench() as skid:
        await skid.start(f"{line}\nMark: A")
        await until(0.5)
        assert skid.tag("System State") == state
        await skid.engine.cancel(skid.log_line(line).id)
        assert skid.tag("System State") == "Running"
        await until(0.6)
        assert skid.log_line(line).cancelled is True
        assert skid.log() == [(line, 0.1, 0.6), ("Mark: A", 0.6, 0.6)]


@pytest.mark.parametrize(("line", "button"), [("Pause: 1 s", "Unpause"), ("Hold: 1 s", "Unhold")])
async def test_a_person_may_end_a_timed_pause_or_hold_early(
    line: str, button: str, autojump_clock: MockClock
) -> None:
    """Its time is then forgotten, and does not end a later one without a time."""
    async with bench() as skid:
        await skid.start(f"{line}\nMark: A")
        await until(0.5)
        await skid.command(button)
        await until(2)
        assert skid.log() == [(line, 0.1, 0.6), ("Mark: A", 0.6, 0.6)]
        assert skid.tag("System State") == "Running"


async def test_a_hold_in_a_method_waits_for_a_person(autojump_clock: MockClock) -> None:
    """Without a duration, the line itself ends at once."""
    async with bench() as skid:
        await skid.start("Hold\nMark: A")
        await until(10)
        assert (skid.tag("System State"), skid.log()) == ("Holding", [("Hold", 0.1, 0.1)])
        await skid.command("Unhold")
        await until(10.1)
        assert skid.log()[-1] == ("Mark: A", 10.1, 10.1)


async def test_a_stop_in_a_method_ends_the_run(autojump_clock: MockClock) -> None:
    """The lines after it do not run, and everything else that is open ends with it."""
    async with bench() as skid:
        await skid.start("Watch: Flow > 50 L/h\n    Mark: W\nStop\nMark: never")
        await until(1)
        assert skid.log() == [("Watch: Flow > 50 L/h", 0.1, 0.2), ("Stop", 0.2, 0.2)]
        assert skid.log_line("Watch: Flow > 50 L/h").cancelled is True
        assert skid.events[-1] == (0.2, "stop", "")
        assert skid.state().started_line_ids == []


async def test_the_method_state_follows_step_by_step(autojump_clock: MockClock) -> None:
    """Lines are started, then executed; after the last line of an open body more may be written."""
    async with bench() as skid:
        await skid.start("Mark: A\nBlock: B\n    Wait: 1 s\n    End block\nMark: C")
        seen = []
        for time_s in (0.0, 0.1, 0.2, 0.3, 1.3, 1.4):
            await until(time_s)
            state = skid.state()
            seen.append((state.started_line_ids, state.executed_line_ids))
        assert seen == [
            ([], []),
            ([], ["0"]),
            (["1"], ["0"]),
            (["1", "2"], ["0"]),
            ([], ["0", "1", "2", "3"]),
            ([], ["0", "1", "2", "3", "4"]),
        ]
        assert skid.state().locked_line_ids == ["0", "1", "2", "3"]
        assert skid.state().content_locked_line_ids == ["4"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Foo", "Unknown command 'Foo'"),
        ("Pump: fast", "Pump: 'fast' does not fit; write, for instance, 'Pump: 40 %'"),
        ("Pump: 140 %", "Pump: 140 % is not between 0 and 100 %"),
        ("Set flow: 2 L/min", "Set flow: 120 L/h is not between 0 and 60 L/h"),
        ("Valve", "Valve: something is missing; write, for instance, 'Valve: Feed'"),
        ("Watch: Speed > 3", "There is no tag 'Speed'"),
        ("End block", "There is no block to end"),
        ("  Mark: B", "The indentation of 'Mark: B' is wrong: 4 spaces for each level"),
    ],
)
async def test_a_line_that_fails_pauses_the_run(
    line: str, message: str, autojump_clock: MockClock
) -> None:
    """Status, colour, run log, error log and an event show it, but no event of a pause."""
    text = line.strip()
    async with bench() as skid:
        await skid.start(f"Mark: A\n{line}\nMark: C")
        await until(5)
        assert (skid.tag("Method Status"), skid.tag("System State")) == ("Error", "Paused")
        assert skid.state().failed_line_ids == ["1"]
        assert skid.state().executed_line_ids == ["0"]
        assert skid.log_line(text).failed is True
        assert skid.log() == [("Mark: A", 0.1, 0.1), (text, 0.2, 0.2)]
        assert skid.errors() == [f"Error in method line '{text}': {message}"]
        assert skid.events == [(0.0, "start", ""), (0.2, "error", message)]


async def test_a_failed_line_is_tried_again_after_it_is_corrected(
    autojump_clock: MockClock,
) -> None:
    """The edit clears the error, but the run stays paused until a person lets it go on."""
    async with bench() as skid:
        await skid.start("Mark: A\nFoo\nMark: C")
        await until(1)
        await skid.engine.set_method(method("Mark: A\nMark: B\nMark: C"))
        assert (skid.tag("Method Status"), skid.tag("System State")) == ("OK", "Paused")
        await skid.command("Unpause")
        await until(1.2)
        assert skid.log()[-2:] == [("Mark: B", 1.1, 1.1), ("Mark: C", 1.2, 1.2)]
        assert skid.state().failed_line_ids == []


async def test_a_failed_line_that_is_left_as_it_is_fails_again(autojump_clock: MockClock) -> None:
    """Unpause tries the line once more."""
    async with bench() as skid:
        await skid.start("Foo")
        await until(1)
        await skid.command("Unpause")
        await until(1.1)
        assert [event[:2] for event in skid.events if event[1] == "error"] == [
            (0.1, "error"),
            (1.1, "error"),
        ]
        assert (skid.tag("Method Status"), skid.tag("System State")) == ("Error", "Paused")
