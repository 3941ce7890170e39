"""Delivery of a dead engine's outbox, in virtual time: what arrives, and when it ends."""

import math
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from tests.helpers.unit import EPOCH, Middle, Unit
from tests.runner.test_crash import Clock, in_place, process, refused_tags
from trio_runner import (
    AlreadyConnected,
    CommandError,
    DurableOutbox,
    EngineDispatcher,
    EngineRunner,
    LinkLost,
    NetworkError,
    OutboxError,
    Session,
    Timing,
)
from trio_runner._cli import main
from trio_runner._cli._dead_engine import DeadEngine
from trio_runner._cli._delivery import WatchedDialer, deliver
from trio_runner._outbox_sqlite import origin_of, requeue, summarize
from trio_runner._warnings import Warnings
from trio_runner.protocol import ErrorMessage, MessageBase
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

METHOD = mdl.Method(version=3, lines=[mdl.MethodLine(id="7", content="Wait: 10 min")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unit.outbox"


@define(eq=False)
class Delivery:
    """A delivery, and how it has ended."""

    entrance: WatchedDialer
    shown: list[int] = field(factory=list)
    took_s: float = 0.0


async def delivered(
    path: Path,
    aggregator: Aggregator,
    *,
    secret: str = "",
    stopped: trio.Event | None = None,
    give_up_after_s: float = math.inf,
) -> Delivery:
    """Do what the command does."""
    engine = DeadEngine.of(origin_of(path), secret, ignore_version_error=False)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        entrance = WatchedDialer(
            EngineDispatcher(
                "aggregator.example", handlers=engine, open_stream=aggregator.in_memory(nursery)
            )
        )
        delivery = Delivery(entrance)
        with DurableOutbox(path) as outbox:
            runner = EngineRunner(
                entrance, engine, engine, outbox=outbox, offload=in_place, rng=Middle()
            )
            await deliver(
                runner,
                entrance,
                show=delivery.shown.append,
                stopped=trio.Event() if stopped is None else stopped,
                give_up_after_s=give_up_after_s,
            )
        delivery.took_s = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return delivery


class Rig(Unit):
    """A unit whose tags do not tell everything about it."""

    def create_uod_info(self) -> em.UodInfoMsg:
        return evolve(super().create_uod_info(), hardware_str="rig 7")


async def die_in_a_run(path: Path, aggregator: Aggregator) -> Unit:
    """Run an engine that loses its link, kill it 9.5 s into a run, bring the aggregator back."""
    unit = Rig("Skid", location="Lab 4", author_name="Ada")
    unit.method = METHOD
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(1.05)
        aggregator.down()
        aggregator.drop()
        await trio.sleep(2)
        runner.on_start("run-1")
        await trio.sleep(9.5)
    aggregator.kill()
    aggregator.up()
    return unit


async def test_the_run_of_a_dead_engine_arrives_whole_under_its_own_name(
    path: Path, autojump_clock: Clock
) -> None:
    """It is listed once, with all samples and the method, under the engine's own name."""
    aggregator = Aggregator()
    unit = await die_in_a_run(path, aggregator)
    waiting = summarize(path).waiting
    delivery = await delivered(path, aggregator)
    assert delivery.took_s < 1
    assert delivery.shown[0] >= waiting
    assert delivery.shown[-1] == summarize(path).waiting == 0
    assert list(aggregator.engines) == ["host_Skid"]
    first, second = aggregator.engine().registrations
    assert second.message == first.message == unit.create_register_engine_msg()
    (run,) = aggregator.recent_runs
    assert (run.run_id, run.started_tick) == ("run-1", EPOCH + 3.05)
    assert run.method.lines == METHOD.lines
    assert refused_tags(aggregator) == []
    counts = dict.fromkeys(m.tags[0].value for m in aggregator.messages(em.TagsUpdatedMsg))
    assert list(counts) == list(range(1, len(counts) + 1))
    assert len(counts) == unit.count
    stored = [sample.value for sample in aggregator.plot_log["run-1"]["Count"]]
    in_run = [m for m in aggregator.messages(em.TagsUpdatedMsg) if m.run_id == "run-1"]
    assert stored == [m.tags[0].value for m in in_run]
    # The last sample with a link is at 1.0 s, then there is one every 1.2 s, the data-log interval
    # of 1 s and two ticks. The run is on from 3.05 s. The last is at 3.4 s + 7 * 1.2 s = 11.8 s; it
    # is on the disk by 12.5 s, and the engine is dead at 12.55 s.
    assert len(stored) == 8
    first_told, *_, last_told = aggregator.messages(em.UodInfoMsg)
    assert evolve(last_told, sequence_number=first_told.sequence_number) == first_told


async def test_nothing_of_a_dead_engine_is_made_up(path: Path, autojump_clock: Clock) -> None:
    """There is not one sample more than it took, however long the delivery lasts."""
    aggregator = Aggregator()
    unit = await die_in_a_run(path, aggregator)
    aggregator.handling_time_s = 2.0
    delivery = await delivered(path, aggregator)
    assert delivery.took_s > 20
    values = {m.tags[0].value for m in aggregator.messages(em.TagsUpdatedMsg) if m.tags}
    assert max(int(str(value)) for value in values) <= unit.count
    assert all(m.tags for m in aggregator.messages(em.TagsUpdatedMsg))
    assert aggregator.engine().unit.control_state.is_running is False
    with pytest.raises(CommandError):
        await DeadEngine.of(
            origin_of(path), "", ignore_version_error=False
        ).execute_control_command("Start")


async def test_a_run_that_the_aggregator_has_is_ended(path: Path, autojump_clock: Clock) -> None:
    """That holds even if nothing else waits, since all but the end was delivered before."""
    aggregator = Aggregator()
    async with process(path, aggregator, Unit()) as runner:
        await trio.sleep(1)
        runner.on_start("run-1")
        await trio.sleep(2)
    assert aggregator.recent_runs == []
    await delivered(path, aggregator)
    assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
    assert summarize(path).open_run is None


async def test_a_file_of_an_older_version_is_delivered_too(
    path: Path, autojump_clock: Clock
) -> None:
    """It does not describe the unit, and without a description everything would be thrown away."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    DurableOutbox(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM facts WHERE name IN ('registration', 'uod_info', 'method')")
    await delivered(path, aggregator)
    assert list(aggregator.engines) == ["host_Skid"]
    assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
    in_run = [m for m in aggregator.messages(em.TagsUpdatedMsg) if m.run_id == "run-1"]
    stored = [sample.value for sample in aggregator.plot_log["run-1"]["Count"]]
    assert stored == [m.tags[0].value for m in in_run]
    assert len(stored) > 5


def test_an_outbox_without_a_name_cannot_be_delivered(path: Path) -> None:
    """Nobody knows under which name to deliver it."""
    DurableOutbox(path).close()
    with pytest.raises(OutboxError, match="does not say whose messages it holds"):
        origin_of(path)


async def test_the_messages_of_an_old_host_name_are_delivered_under_it(
    path: Path, autojump_clock: Clock
) -> None:
    """Meanwhile the engine runs under its new name, with its own outbox."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    async with process(path, aggregator, Unit("Skid", computer_name="lab-7")):
        await trio.sleep(1)
        aside = path.with_name("unit.outbox.host_Skid")
        assert aggregator.recent_runs == []
        await delivered(aside, aggregator)
        assert [(run.engine_id, run.run_id) for run in aggregator.recent_runs] == [
            ("host_Skid", "run-1")
        ]
        assert aggregator.is_connected("lab-7_Skid")
    assert summarize(aside).waiting == 0


async def test_a_delivery_that_was_cut_short_goes_on(path: Path, autojump_clock: Clock) -> None:
    """Delivery and aggregator are killed midway. What had not been answered is sent again."""
    aggregator = Aggregator()
    unit = await die_in_a_run(path, aggregator)
    aggregator.handling_time_s = 0.5
    before = len(aggregator.messages(em.TagsUpdatedMsg))
    kept = path.with_name("kept")
    with trio.move_on_after(4):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delivered, path, aggregator)
            await trio.sleep(3)
            assert before < len(aggregator.messages(em.TagsUpdatedMsg)) < unit.count
            for end in ("", "-wal"):
                shutil.copy(f"{path}{end}", f"{kept}{end}")
            aggregator.kill()
            nursery.cancel_scope.cancel()
    aggregator.handling_time_s = 0.0
    await delivered(kept, aggregator)
    assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
    assert summarize(kept).waiting == 0


# When it ends


async def test_a_wrong_secret_ends_the_delivery_at_once(path: Path, autojump_clock: Clock) -> None:
    """It says what to do, and everything stays in the file."""
    aggregator = Aggregator(secret="right")  # noqa: S106
    await die_in_a_run(path, aggregator)
    waiting = summarize(path).waiting
    delivery = await delivered(path, aggregator, secret="wrong")  # noqa: S106
    assert delivery.took_s < 2
    assert "refused the secret" in (delivery.entrance.refusal or "")
    assert "--secret-file" in (delivery.entrance.refusal or "")
    assert summarize(path).waiting == waiting + 1  # one more is the end of the run


async def test_another_version_ends_the_delivery_at_once(path: Path, autojump_clock: Clock) -> None:
    """It says which option lets it in."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    aggregator.version = "9.9.9"
    delivery = await delivered(path, aggregator)
    assert "--ignore_version_error" in (delivery.entrance.refusal or "")


async def test_a_living_engine_of_that_name_ends_the_delivery_after_a_minute(
    path: Path, autojump_clock: Clock
) -> None:
    """A dead connection is dropped within 40 s, so a dead engine's is waited for."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    async with process(path.with_name("other"), aggregator, Unit("Skid")):
        await trio.sleep(1)
        delivery = await delivered(path, aggregator)
    assert 60 <= delivery.took_s < 75
    assert "stop that engine first" in (delivery.entrance.refusal or "")
    assert aggregator.recent_runs == []


async def test_a_delivery_waits_for_the_aggregator_as_long_as_it_is_told(
    path: Path, autojump_clock: Clock
) -> None:
    """Told 30 s, it ends after 30 s, since there is no link over which to flush."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    aggregator.down()
    waiting = summarize(path).waiting
    delivery = await delivered(path, aggregator, give_up_after_s=30)
    assert delivery.took_s == pytest.approx(30, abs=0.01)
    assert delivery.entrance.refusal is None
    assert summarize(path).waiting == waiting + 1


async def test_a_signal_ends_the_delivery(path: Path, autojump_clock: Clock) -> None:
    """It ends in order, whatever it waits for."""
    aggregator, stopped = Aggregator(), trio.Event()
    await die_in_a_run(path, aggregator)
    aggregator.down()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(delivered, path, aggregator, stopped=stopped))
        await trio.sleep(100)
        stopped.set()
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
    assert summarize(path).waiting > 0


async def test_what_is_refused_is_set_aside_and_can_be_sent_again(
    path: Path, autojump_clock: Clock
) -> None:
    """The rest arrives. Requeued, it arrives in its old place when the aggregator takes it."""
    aggregator = Aggregator()
    await die_in_a_run(path, aggregator)
    aggregator.on_message = refuse_notices
    await delivered(path, aggregator)
    assert summarize(path).waiting == 0
    (aside,) = summarize(path).set_aside
    assert aside.kind == "WebPushNotificationMsg"
    assert aggregator.engine().notifications == []
    assert requeue(path).waiting == 1
    aggregator.on_message = None
    await delivered(path, aggregator)
    assert len(aggregator.engine().notifications) == 1
    assert summarize(path).set_aside == []


async def refuse_notices(message: em.EngineMessage) -> MessageBase | None:
    is_notice = isinstance(message, em.WebPushNotificationMsg)
    return ErrorMessage(message="not this one") if is_notice else None


class Scripted:
    """A dialer whose dials each fail in their own way."""

    def __init__(self, *failures: NetworkError) -> None:
        self.failures = list(failures)

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        raise self.failures.pop(0)

    async def end_commands(self) -> None:
        """Do nothing."""

    def warn_by(self, warnings: Warnings) -> None:
        """Do nothing."""


async def test_our_own_dead_connection_is_not_taken_for_a_living_engine(
    autojump_clock: Clock,
) -> None:
    """After a link, such an answer is no reason to give up, even an hour after the first."""
    twin = AlreadyConnected("An engine of this name is connected.")
    entrance = WatchedDialer(
        Scripted(twin, LinkLost("The connection to the aggregator broke off."), twin)
    )
    for failure in (AlreadyConnected, LinkLost, AlreadyConnected):
        with pytest.raises(failure):
            await entrance.dial(Unit().create_register_engine_msg(), Timing())
        await trio.sleep(3600)
    assert entrance.refusal is None


def test_a_unit_is_not_shown_if_it_is_unknown_who_may_see_it(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of an older version does not describe the unit, so everybody could see its run."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Skid")
        outbox.put(Unit(clock=lambda: 0.0).create_wpn_run_paused_msg())
    assert main(["outbox", "deliver", str(path), "-ahn", "127.0.0.1"]) == 1
    assert "or who may see it" in capsys.readouterr().err
    assert summarize(path).waiting == 1
