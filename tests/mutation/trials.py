"""The trials of mutants: tests and lives of the simulation, in forks of a process that is ready.

Each trial is run once without a mutant, which tells which lines of the core it runs, and how long
it takes. Against a mutant go those that run the statement that changes, the quickest first, until
one fails, dies or takes far too long. A function changes in the memory of the fork only.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from attrs import frozen

from tests.mutation.mutants import Mutant, all_code, core_modules, function_code
from trio_runner.simulation.trials import _simulate

LIFE_S = 60.0
"""How long faults happen in each life of the simulation (s)."""

TESTS_S_MAX = 30.0
"""How long the tests of one mutant may take at first, by what they take without it (s)."""

HANGS_AFTER = 10
"""How many times as long as without a mutant a trial may take, after 5 s."""

NO_PYTHON = "the compiler"
"""What catches a mutant that is none."""

MONITORING: Any = getattr(sys, "monitoring", None)
"""None before Python 3.12."""

Lines = dict[str, list[int]]

_FORK = multiprocessing.get_context("fork")


@frozen
class Trial:
    """A test, or a life of the simulation."""

    name: str
    seconds: float
    """How long it takes without a mutant."""
    lines: Lines
    """The lines of the core that it runs, by the module's path."""

    @property
    def is_life(self) -> bool:
        """Whether it is a life, not a test."""
        return self.name.startswith("seed ")


def trials_of(mutant: Mutant, trials: Iterable[Trial], tests_s_max: float) -> list[Trial]:
    """Return the trials in which a mutant may show: tests before lives, the quickest first.

    The tests take `tests_s_max` together at the most (s).
    """
    file, lines = str(mutant.path), set(mutant.lines)
    concerned = [trial for trial in trials if not lines.isdisjoint(trial.lines.get(file, ()))]
    chosen, tests_s = list[Trial](), 0.0
    for trial in sorted(concerned, key=lambda trial: (trial.is_life, trial.seconds)):
        tests_s += trial.seconds
        if trial.is_life or tests_s <= tests_s_max:
            chosen.append(trial)
    return chosen


class Trials:
    """A plugin of pytest that does `work` with the tests, instead of running them."""

    def __init__(self, work: Callable[["Trials"], None], seeds: int) -> None:
        self._work = work
        self._seeds = seeds
        self._run: dict[str, Callable[[], bool]] = {}
        self._functions: list[FunctionType] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work when the tests have been collected."""
        if session.testsfailed or MONITORING is None:
            raise session.Interrupted("tests were not collected, or Python is older than 3.12")
        for item in session.items:
            self._run[item.nodeid] = _test(session, item)
        for seed in range(self._seeds):
            self._run[f"seed {seed}"] = _life(seed)
        core = set(map(str, core_modules()))
        things = (thing for thing in gc.get_objects() if isinstance(thing, FunctionType))
        self._functions = [thing for thing in things if thing.__code__.co_filename in core]
        gc.freeze()  # forks share it
        self._work(self)
        return True

    @property
    def names(self) -> list[str]:
        """The names of all trials: tests as pytest names them, and `seed N`."""
        return list(self._run)

    def measure(self, names: list[str]) -> list[Trial]:
        """Run trials without a mutant; return those that pass."""
        found = list[Trial]()
        with _child(lambda say: self._measure(say, names)) as said:
            for name in names:
                trial = said.recv()
                if trial is None:
                    sys.stdout.write(f"Fails without a mutant, and is left out: {name}\n")
                else:
                    found.append(trial)
        return found

    def _measure(self, say: Connection, names: Iterable[str]) -> None:
        trace = _Trace(self._functions)
        for name in names:
            trace.begin()
            began = time.perf_counter()
            passes = self._run[name]()
            trial = Trial(name, time.perf_counter() - began, trace.lines())
            say.send(trial if passes else None)

    def catch(self, mutant: Mutant, trials: Iterable[Trial]) -> str | None:
        """Return the name of the trial that catches a mutant, or None."""
        name, limit_s = "the change itself", 10.0
        with _child(lambda say: self._try(say, mutant, trials)) as said:
            while said.poll(limit_s):
                try:
                    trial = said.recv()
                except EOFError:  # it has failed, or the process died
                    return name
                if trial is None:
                    return None
                name, limit_s = trial
        return f"{name}, in which it hangs"

    def _try(self, say: Connection, mutant: Mutant, trials: Iterable[Trial]) -> None:
        file = str(mutant.path)
        codes = (f.__code__ for f in self._functions if f.__code__.co_filename == file)
        code = function_code(codes, mutant.function, mutant.defined_at)
        try:
            changed = mutant.code()
        except SyntaxError:
            say.send((NO_PYTHON, 1.0))
            return
        for function in self._functions:
            if function.__code__ is code:
                function.__code__ = changed
        for trial in trials:
            say.send((trial.name, 5 + HANGS_AFTER * trial.seconds))
            run = self._run[trial.name]
            if not run() and (trial.is_life or not run()):  # a test in real time may fail by chance
                return  # without a farewell
        say.send(None)


def _test(session: pytest.Session, item: pytest.Item) -> Callable[[], bool]:
    def passes() -> bool:
        failed = session.testsfailed
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return session.testsfailed == failed

    return passes


def _life(seed: int) -> Callable[[], bool]:
    return lambda: _simulate.simulate(seed, LIFE_S).violation is None


class _Trace:
    """Notes the lines of functions that are run, in any thread."""

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        self._lines: dict[str, set[int]] = {}
        line = MONITORING.events.LINE
        MONITORING.use_tool_id(MONITORING.COVERAGE_ID, __name__)
        MONITORING.register_callback(MONITORING.COVERAGE_ID, line, self._note)
        for function in functions:
            for code in all_code(function.__code__):
                MONITORING.set_local_events(MONITORING.COVERAGE_ID, code, line)

    def _note(self, code: CodeType, line: int) -> object:
        self._lines.setdefault(code.co_filename, set()).add(line)
        return MONITORING.DISABLE  # until the next trial

    def begin(self) -> None:
        self._lines.clear()
        MONITORING.restart_events()

    def lines(self) -> Lines:
        return {file: sorted(lines) for file, lines in self._lines.items()}


@contextlib.contextmanager
def _child(work: Callable[[Connection], None]) -> Generator[Connection, None, None]:
    """Do work in a fork, which says things over a connection; kill it and its children at last."""
    said, say = _FORK.Pipe(duplex=False)

    def quietly() -> None:
        os.setsid()
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        work(say)

    process = _FORK.Process(target=quietly)
    process.start()
    assert process.pid is not None
    say.close()
    try:
        yield said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        said.close()
