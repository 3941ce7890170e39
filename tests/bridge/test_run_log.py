"""The run log in mid-run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openpectus.engine import engine_message_builder as package

from trio_runner.bridge import to_object
from trio_runner.protocol import encode, encode_body
from trio_runner.protocol import engine_messages as em

from .units import Ticked, ticked_demo


@contextmanager
def run_of(*method: str) -> Iterator[Ticked]:
    """Yield an engine that has begun to run a method."""
    with ticked_demo() as unit:
        unit.set_method(*method)
        unit.press("Start")
        yield unit


def told(unit: Ticked) -> Any:
    """Return the run log as it goes out."""
    return json.loads(encode_body(unit.engine.builder.create_runlog_msg("R")))["runlog"]["lines"]


def whole(unit: Ticked) -> Any:
    """Return the run log as the package makes it all at once."""
    builder: Any = unit.engine.builder
    return to_object(builder._builder.create_runlog_msg("R"))["runlog"]["lines"]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the models of tags that the package makes."""
    made: list[Any] = []
    make = package.to_model_tag

    def noted(tag: Any) -> Any:
        made.append(make(tag))
        return made[-1]

    monkeypatch.setattr(package, "to_model_tag", noted)
    return made


def test_a_line_that_has_ended_is_made_once(models: list[Any]) -> None:
    """Each later run log costs only the running line: one model with the values at its start."""
    with run_of(*["Mark: A"] * 50, "Wait: 100 s") as unit:
        unit.tick(100)
        assert len(told(unit)) == 51
        readings = len(unit.inside.uod.readings)
        assert len(models) == (2 * 50 + 1) * readings
        for _ in range(3):
            unit.tick(51)  # this is over 5 s, so progress is told
            models.clear()
            lines = told(unit)
            assert len(models) == readings
            assert lines == whole(unit)


def progress_told(unit: Ticked, samples: int) -> int:
    """Return how often new progress is told in this many samples, three ticks each."""
    shown = [told(unit)[-1]["progress"]]
    for _ in range(samples):
        unit.tick(3)
        shown.append(told(unit)[-1]["progress"])
    return len(set(shown)) - 1


def test_progress_alone_is_told_after_0_1_s_a_line_and_5_s_at_most() -> None:
    """The rest of a long run log has not changed."""
    with run_of("Mark: A", "Wait: 100 s") as unit:  # 2 lines, 0.2 s: with each sample
        unit.tick(5)
        assert progress_told(unit, samples=10) == 10
    with run_of(*["Mark: A"] * 19, "Wait: 100 s") as unit:  # 20 lines, 2 s: with each seventh
        unit.tick(40)
        assert progress_told(unit, samples=21) == 3
    with run_of(*["Mark: A"] * 99, "Wait: 100 s") as unit:  # 5 s: with each 17th
        unit.tick(200)
        assert progress_told(unit, samples=51) == 3


def test_a_run_log_that_differs_only_in_progress_is_not_even_made() -> None:
    """Within the 5 s that a long run log rests, the package is asked for it once."""
    with run_of(*["Mark: A"] * 99, "Wait: 100 s") as unit:
        unit.tick(200)
        asked: list[float] = []
        get_runlog = unit.inside.tracking.get_runlog

        def noted() -> Any:
            asked.append(unit.now)
            return get_runlog()

        unit.inside.tracking.get_runlog = noted
        for _ in range(17):
            unit.tick(3)
            told(unit)
        assert len(asked) == 1


def test_the_end_of_a_line_is_told_at_once() -> None:
    """It does not wait as progress does."""
    with run_of(*["Mark: A"] * 60, "Wait: 10 s", "Mark: B", "Wait: 100 s") as unit:
        unit.tick(120)
        assert [line["command_name"] for line in told(unit)][-1] == "Wait: 10 s"
        while told(unit)[60]["end"] is None:
            assert unit.now < 1.7e9 + 60
            unit.tick()
        assert told(unit)[60]["end"] == unit.now


def test_the_next_run_begins_without_lines_of_the_last() -> None:
    """Nothing is kept of a run that has ended."""
    with run_of("Mark: A", "Wait: 100 s") as unit:
        unit.tick(10)
        assert len(told(unit)) == 2
        unit.press("Stop")
        unit.press("Start")
        assert [line["command_name"] for line in told(unit)] == [
            line["command_name"] for line in whole(unit)
        ]
        builder: Any = unit.engine.builder
        ended = [line for line in told(unit) if line["end"] is not None]
        assert len(builder._run_logs._ended) == len(ended)


def test_a_package_that_makes_its_lines_differently_makes_them_all(models: list[Any]) -> None:
    """An older package keeps its run log elsewhere; what it makes goes out all the same."""
    with run_of("Mark: A", "Wait: 100 s") as unit:
        unit.tick(10)
        expected = whole(unit)
        builder: Any = unit.engine.builder
        builder._run_logs._engine = object()
        models.clear()
        assert told(unit) == expected
        assert len(models) == 3 * len(unit.inside.uod.readings)


def test_the_end_of_a_run_has_the_last_run_log_if_none_can_be_made() -> None:
    """It is the run log that was told last, with all its lines."""
    with run_of("Mark: A", "Wait: 100 s") as unit:
        unit.tick(10)
        lines = told(unit)
        unit.inside.tracking.get_runlog = lambda: 1 / 0
        stopped: em.RunStoppedMsg = unit.engine.builder.create_run_stopped_msg("R")
        assert encode(stopped)["runlog"]["lines"] == lines
