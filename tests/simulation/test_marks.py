"""Marks of what a simulation must meet sometimes: counted, listed, and required of many seeds."""

import re
from argparse import Namespace
from pathlib import Path

import pytest

import trio_runner.simulation
from trio_runner._cli import _simulate
from trio_runner.simulation.stand_ins._sometimes import counting, sometimes
from trio_runner.simulation.trials import _simulate as _trials
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._marks import MARKS

ROOT = Path(trio_runner.simulation.__file__).parent


def test_one_seed_meets_exactly_these_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one reset the engine connects, loses its link, is back, and stops.

    A person presses three buttons in these 20 s, two of them while there is no engine.
    """
    monkeypatch.setattr(_trials, "FAULTS", {"reset": FAULTS["reset"]})
    report = _trials.simulate(1, 20)
    assert report.marks == {
        "Started -> Connected": 1,
        "Connected -> Failed": 1,
        "Failed -> Disconnected": 1,
        "Disconnected -> Reconnecting": 1,
        "Reconnecting -> CatchingUp": 1,
        "CatchingUp -> Reconnected": 1,
        "Reconnected -> Stopped": 1,
        "Stopped -> ShutdownComplete": 1,
        "call answered": 1,
        "call refused": 2,
        "fault reset": 1,
        "flushed": 1,
        "one at a time": 3,
        "several at once": 1,
        "taken": 26,
    }


def test_a_mark_counts_only_in_a_simulation() -> None:
    """Elsewhere the stand-ins are used without counting."""
    sometimes("taken")
    with counting() as met:
        sometimes("taken")
        sometimes("taken", holds=[])
        sometimes("taken", holds="yes")
    sometimes("taken")
    assert met == {"taken": 2}


def test_the_marks_in_the_code_and_those_in_the_list_are_the_same() -> None:
    """Only names that are composed from other names are exempt."""
    sources = "".join(path.read_text() for path in ROOT.rglob("*.py") if path.stem != "_marks")
    names = set(re.findall(r'sometimes\(\s*"([^"]+)"', sources))
    assert sorted(names - MARKS.keys()) == []
    words = {name for name in MARKS if " -> " not in name and not name.startswith("fault ")}
    assert [name for name in words if f'"{name}"' not in sources] == [
        name for name in words if name.startswith(("dial ", "state ")) and name not in names
    ]
    assert all(re.fullmatch(r"[A-Z].*[^.]\.", sentence) for sentence in MARKS.values())


@pytest.mark.parametrize(
    ("marks", "many_seeds", "faults", "code"),
    [
        pytest.param({"taken": "It is."}, 1, None, 0, id="all are met"),
        pytest.param({"taken": "It is.", "war": "There is."}, 1, None, 1, id="one is not"),
        pytest.param({"war": "There is."}, 2, None, 0, id="too few seeds to tell"),
        pytest.param({"war": "There is."}, 1, ("reset",), 0, id="not with all faults"),
    ],
)
def test_many_seeds_must_meet_each_mark(
    marks: dict[str, str],
    many_seeds: int,
    faults: tuple[str, ...] | None,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A simulated world that is too small gives exit code 1 and a list of the missing marks."""
    arguments = Namespace(
        seeds=range(3, 5),
        hours=1 / 720,
        faults=faults,
        keep=None,
        trace=None,
        html=None,
        jobs=1,
        shrink=False,
    )
    assert _simulate.run(arguments, marks=marks, many_seeds=many_seeds) == code
    out = capsys.readouterr().out
    met = len(marks.keys() & {"taken"})
    assert f"\nSituations met: {met} of {len(marks)}\n" in out
    lacks = "\nTHE WORLD IS TOO SMALL: this many seeds should have met, but did not:\n  war   "
    assert (lacks in out) == (code == 1)
    assert ("There is." in out) == (code == 1)
