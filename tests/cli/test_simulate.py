"""`trio-runner simulate`: what it reports, what it refuses, and how it ends."""

import hashlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from tests.helpers.command import COMMAND, ENVIRONMENT
from trio_runner._cli import main
from trio_runner._sender import Sender
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._schedule import plan
from trio_runner.simulation.trials._shrink import Case, shrink
from trio_runner.simulation.trials._simulate import Report, simulate

SHORT = ["--hours", "1/360"]  # 10 s


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Leave Ctrl-C as it was, since the command runs in the tests' own process here."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bug into the runner, so that it sends nothing of what stands in line."""
    monkeypatch.setattr(Sender, "_due_head", lambda _: None)


def repeated(out: str) -> list[str]:
    """Return the arguments of the last command that the report gives to repeat a violation."""
    command = re.findall(r"^Repeat it with: (.*)$", out, re.MULTILINE)[-1]
    program, *arguments = shlex.split(command)
    assert program == "trio-runner"
    return arguments


def test_the_report_tells_what_was_injected_and_what_was_delivered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Seeds, speed, faults by kind, and what arrived; a stderr that is no terminal stays empty."""
    assert main(["simulate", "--seeds", "3-4", "--hours", "1/60", "--faults", "reset,close"]) == 0
    out, err = capsys.readouterr()
    reports = [simulate(seed, 60, kinds=("reset", "close")) for seed in (3, 4)]
    assert err == ""
    assert re.match(r"2 seeds, 0\.03\d* simulated hours in [\d.]+ s: ", out)
    faults = {kind: sum(r.faults.get(kind, 0) for r in reports) for kind in ("reset", "close")}
    assert f"Faults injected: {sum(faults.values())}\n" in out
    for kind, number in faults.items():
        assert re.search(rf" {kind} +{number}\b", out) or not number
    for what, number in {
        "events": sum(r.events for r in reports),
        "samples": sum(r.samples for r in reports),
        "processes": 2,
    }.items():
        assert re.search(rf"^  {what} +{number}$", out, re.MULTILINE)
    longest = max(reports, key=lambda report: report.recovered_s)
    told = rf"^  longest recovery +{longest.recovered_s:.1f} s   \(seed {longest.seed}\)$"
    assert re.search(told, out, re.MULTILINE)


def test_the_hash_is_that_of_the_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--trace` writes all lines, and anybody can compute their hash."""
    file = tmp_path / "trace"
    assert main(["simulate", "--seed", "5", *SHORT, "--trace", str(file)]) == 0
    written = file.read_bytes()
    assert f"traces   {hashlib.sha256(written).hexdigest()}\n" in capsys.readouterr().out
    assert written.count(b"\n") > 20


def test_the_last_line_is_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """It says that no promise was broken. `--shrink` then says that there is nothing to do.

    Two seeds have 60 s of faults each, and some time to recover: 0.03 h and a bit.
    """
    assert main(["simulate", "--seeds", "3-4", "--hours", "1/60", "--faults", "reset"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"Every promise was kept: 2 lives, 0\.0\d+ h", last)
    assert main(["simulate", "--seed", "3", *SHORT, "--faults", "reset", "--shrink"]) == 0
    *_, verdict, shrunk = capsys.readouterr().out.splitlines()
    assert verdict.startswith("Every promise was kept: 1 life, ")
    assert shrunk == "Nothing failed, so there is nothing to shrink."


@pytest.mark.parametrize("option", ["trace", "html"])
def test_a_full_disk_ends_the_command_with_one_line(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written is an error of the argument, whenever that shows."""
    assert main(["simulate", "--seed", "3", *SHORT, f"--{option}", "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"trio-runner simulate: error: argument --{option}: cannot write /dev/full:"
        " No space left on device\n"
    )


def test_a_life_can_be_drawn_into_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--html` writes a page with all lines of the trace and says where; the trace is the same."""
    page, trace = tmp_path / "life.html", tmp_path / "trace"
    arguments = ["simulate", "--seed", "5", *SHORT]
    assert main([*arguments, "--html", str(page), "--trace", str(trace)]) == 0
    out = capsys.readouterr().out
    assert f"\nA picture of it is in {page}\n" in out
    assert f"traces   {simulate(5, 10).hash}\n" in out
    life = drawn(page)
    assert life["title"] == "trio-runner simulate --seed 5 --hours 1/360"
    assert (life["verdict"], life["bad"]) == ("Every promise was kept", False)
    lines = [f"{at_s:12.6f}  {text}" for at_s, text in life["lines"]]
    assert lines == trace.read_text().splitlines()


@pytest.mark.usefixtures("mutant")
def test_a_broken_promise_is_in_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page has the promise and the moment, as they are told."""
    page = tmp_path / "life.html"
    arguments = ["simulate", "--seed", "1", "--hours", "1/60", "--faults", "reset,burst"]
    assert main([*arguments, "--html", str(page)]) == 1
    life = drawn(page)
    moment, promise = life["violation"]
    assert f"SEED 1 BROKE A PROMISE at {moment:.6f} s: {promise}\n" in capsys.readouterr().out
    assert life["verdict"] == f"A promise was broken at {moment:.6f} s: {promise}"
    assert life["bad"]


def drawn(page: Path) -> dict[str, Any]:
    """Return the data that a page shows."""
    data = re.search(r'<script id="life" type="application/json">(.*)</script>', page.read_text())
    assert data is not None
    return dict(json.loads(data[1]))


@pytest.mark.usefixtures("mutant")
def test_a_broken_promise_is_told_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has the seed, the moment, the promise, the last lines, and the others in a line each."""
    assert main(["simulate", "--seeds", "1-19", "--hours", "1/60", "--faults", "reset,burst"]) == 1
    out = capsys.readouterr().out
    report = simulate(1, 60, kinds=("reset", "burst"))
    assert report.violation is not None
    (moment,) = [line.split()[0] for line in report.last_lines if "VIOLATION" in line]
    told = f"SEED 1 BROKE A PROMISE at {moment} s: {report.violation}"
    assert told in out
    assert "".join(f"  {line}\n" for line in report.last_lines) in out
    assert re.search(r"^Seed \d+ broke a promise too, at \d+\.\d+ s: \w", out, re.MULTILINE)
    arguments = repeated(out)
    assert arguments == shlex.split("simulate --seed 1 --hours 1/60 --faults reset,burst")
    assert main(arguments) == 1
    assert told in capsys.readouterr().out


@pytest.mark.usefixtures("mutant")
def test_a_shrunk_violation_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """`--shrink` gives the command of a shorter simulation that still fails, and it does."""
    assert main(["simulate", "--seed", "1", "--shrink"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^Tried \d+ runs?; the shortest that fails takes \d+ s", out, re.MULTILINE)
    arguments = repeated(out)
    assert arguments[:4] == ["simulate", "--seed", "1", "--hours"]
    assert arguments[4] != "1/6"
    told = re.findall(r"SEED 1 BROKE A PROMISE .*", out)[-1]
    assert main(arguments) == 1
    assert told in capsys.readouterr().out


@define
class Needs:
    """A simulation that fails if these faults are in it and the time is long enough."""

    like: Report
    numbers: set[int]
    duration_s: float
    tried: list[Case] = field(factory=list)

    def __call__(self, case: Case) -> Report:
        self.tried.append(case)
        met = self.numbers <= {fault.number for fault in case.planned()}
        fails = met and case.duration_s >= self.duration_s
        return evolve(self.like, violation="it fails" if fails else None)


@pytest.mark.parametrize(
    ("numbers", "needed_s", "shortest_s"),
    [
        ((), 0, 10),  # the shortest that is tried
        ((), 301, 301),
        ((3, 30), 0, None),  # as long as it takes for the later of them to begin
        ((7,), 577, 577),
    ],
)
def test_shrinking_leaves_what_is_needed_and_nothing_else(
    numbers: tuple[int, ...], needed_s: int, shortest_s: int | None
) -> None:
    """Of 600 s with all faults, the time needed remains, to the second, with the faults needed."""
    planned = plan(11, 600, FAULTS)
    assert len(planned) > 30
    if shortest_s is None:
        shortest_s = int(planned[max(numbers)].at_s) + 1
    fails = Needs(simulate(11, 1), set(numbers), needed_s)
    case = Case(11, 600.0)
    shrunk = shrink(case, fails(case), fails)
    assert shrunk.case.duration_s == shortest_s
    assert tuple(fault.number for fault in shrunk.case.planned()) == numbers
    assert shrunk.report.violation == "it fails"
    assert shrunk.runs == len(fails.tried) - 1
    assert shrunk.runs < 200


def test_only_the_kept_faults_happen(capsys: pytest.CaptureFixture[str]) -> None:
    """`--keep` leaves only the faults of a seed with these numbers; an empty list leaves none."""
    first = plan(3, 60, FAULTS)[0]
    assert main(["simulate", "--seed", "3", "--hours", "1/60", "--keep", "0"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"Faults injected: 1\n  {first.kind} +1\n", out)
    assert main(["simulate", "--seed", "3", "--hours", "1/60", "--keep", ""]) == 0
    assert "Faults injected: 0\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", "x"], "argument --seed: 'x' is not a seed: give a number, 0 or more"),
        (["--seeds", "5"], "argument --seeds: give a range as in 0-19, or one seed by --seed 5"),
        (["--seeds", "5-x"], "argument --seeds: '5-x' is not a range of seeds such as 0-19"),
        (["--seeds", "5-4"], "'5-4' is an empty range: give the lower seed first"),
        (["--seed", "1", "--seeds", "0-9"], "not allowed with argument"),
        (["--hours", "0"], "argument --hours: '0' is not a time"),
        (["--hours", "1/0"], "argument --hours: '1/0' is not a time"),
        (["--hours", "nan"], "argument --hours: 'nan' is not a time"),
        (["--jobs", "0"], "argument --jobs: '0' is not a number from 1"),
        (
            ["--faults", "reset,fire"],
            "there is no fault 'fire'; there are bad_handlers, big_archive, ",
        ),
        (["--seed", "1", "--keep", "a"], "argument --keep: 'a' is not a list of numbers"),
        (["--keep", "1"], "argument --keep: it needs a single seed: give --seed"),
        (["--trace", "x"], "argument --trace: it needs a single seed: give --seed"),
        (["--html", "x"], "argument --html: it needs a single seed: give --seed"),
    ],
)
def test_wrong_arguments_give_one_line_and_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be simulated is told first; an unknown fault is told with the known ones."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["trace", "html"])
def test_a_file_that_cannot_be_written_gives_exit_code_2(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told in one line, before anything is simulated."""
    assert main(["simulate", "--seed", "1", f"--{option}", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    text = f"argument --{option}: cannot write {tmp_path}: Is a directory"
    assert (out, err) == ("", f"trio-runner simulate: error: {text}\n")


@define(eq=False)
class Terminal:
    """The command with its stderr on a terminal, and what it shows there."""

    process: trio.Process
    fd: int
    shown: str = field(default="", init=False)
    _change: Change = field(factory=Change, init=False)

    async def read(self) -> None:
        # This is how a terminal ends to which nobody writes any more.
        with suppress(trio.BrokenResourceError):
            async for data in trio.lowlevel.FdStream(self.fd):
                self.shown += data.decode()
                self._change.notify()

    async def until(self, pattern: str) -> None:
        await self._change.wait_until(lambda: re.search(pattern, self.shown))

    async def rest(self) -> str:
        """Return the rest of stdout, once the last process that has it has ended."""
        assert self.process.stdout is not None
        return b"".join([data async for data in self.process.stdout]).decode()


async def started(nursery: trio.Nursery, jobs: int) -> Terminal:
    """Start a thousand short simulations, and wait until the bar has counted some."""
    ours, theirs = pty.openpty()
    arguments = ["simulate", "--seeds", "0-999", *SHORT, "--jobs", str(jobs)]
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    terminal = Terminal(process, ours)
    nursery.start_soon(terminal.read)
    await terminal.until(r"[1-9]\d*/1000")
    return terminal


@pytest.mark.parametrize("jobs", [1, 2])
async def test_ctrl_c_ends_the_command_in_order(jobs: int) -> None:
    """All processes end, what was done is reported, and there is no traceback."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            terminal = await started(nursery, jobs)
            os.killpg(terminal.process.pid, signal.SIGINT)  # as a terminal does
            out = await terminal.rest()
            assert await terminal.process.wait() == 0
    assert re.match(r"Interrupted after [1-9]\d* of 1000 seeds\.\n[1-9]\d* seeds?, ", out)
    assert "simulated hours a second" in terminal.shown
    assert "Traceback" not in terminal.shown + out


async def test_no_process_is_left_when_the_command_is_killed() -> None:
    """They end with the process that started them, although it could not tell them."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            terminal = await started(nursery, 2)
            terminal.process.kill()
            assert await terminal.rest() == ""  # at the end of the last process
            await terminal.process.wait()


def test_the_report_of_a_fleet_tells_how_it_came_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Each loss is told for real runners and for the model; 450 of them keep to the bound."""
    assert main(["simulate", "--units", "5", "--seed", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("5 units lose one aggregator, which lets 600 in per second.")
    row = re.compile(r"^  refused for 5 s +\d+ +\d+ +\d\.\d\d s +\d\.\d\d s$", re.MULTILINE)
    assert len(row.findall(out)) == 3
    assert out.endswith("\nEvery promise was kept.\n")


def test_no_faults_can_be_chosen_for_a_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    """Options for one life with its faults are refused."""
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", "--units", "5", "--faults", "reset"])
    assert "--faults: not allowed with --units" in capsys.readouterr().err
