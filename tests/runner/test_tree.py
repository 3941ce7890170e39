"""The task tree seen in a life with an outage is the one that the pages show."""

import re
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.helpers.unit import Middle, Unit, wall_clock
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner, _tasks
from trio_runner._states import STATES
from trio_runner.simulation import Aggregator, Network

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "trio_runner" / "ARCHITECTURE.md").read_text()

TASKS = {
    "ticker": "samples the engine into the outbox, link or no link",
    "committer": "with a durable outbox: writes to the disk every 0.5 s",
    "connector": "waits, dials, holds the link, again",
    "session": "dials; then frames in and out, pings, deadlines",
    "buffer sender": "introduces the engine, drains the outbox; ends by starting",
    "steady-state sender": "the next one: sends what comes, as it comes",
}
"""The tasks by their names in a task dump, and what the pages call them."""

NURSERIES = {
    None: ["root nursery"],
    "connector": ["link nursery", "senders' nursery"],
}
"""What the pages call the nurseries of a task, from the outside in; None is the runner's caller."""

NURSERY_NOTES = {
    "link nursery": "lives exactly as long as one dial and its connection",
    "senders' nursery": "so that the last flush can follow them",
}

ALIVE = {
    "Started": (["ticker", "committer", "connector", "session"], ["buffer sender"]),
    "Connected": (
        ["ticker", "committer", "connector", "session", "steady-state sender"],
        [],
    ),
    "Failed": (["ticker", "committer", "connector"], []),
    "Disconnected": (["ticker", "committer", "connector"], ["session"]),
    "Reconnecting": (["ticker", "committer", "connector", "session", "buffer sender"], []),
    "CatchingUp": (["ticker", "committer", "connector", "session", "buffer sender"], []),
    "Reconnected": (
        ["ticker", "committer", "connector", "session", "steady-state sender"],
        [],
    ),
    "Stopped": (["committer", "connector", "session"], []),
}
"""Which tasks are alive throughout a state, and which only in some moments."""


@define(eq=False)
class Sight(trio.abc.Instrument):
    """Looks at the tasks after every step of any task.

    A look counts while a state's block is open and nothing is being cancelled. Nothing is promised
    between two blocks or while a lifetime unwinds.
    """

    runner: EngineRunner
    seen: dict[str, list[set[str]]] = field(factory=dict)
    """The tasks of the runner that were alive at each look, by state."""
    parents: dict[str, tuple[str | None, int]] = field(factory=dict)
    """By task: the task that has its nursery, and the number of this nursery among that task's."""

    is_unwinding: bool = False
    """Whether a link was being cancelled at the last look."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Look at the tasks."""
        root = trio.lowlevel.current_root_task()
        alive: set[str] = set()
        self.is_unwinding = False
        if root is not None:
            self._walk(root, None, alive)
        state = self.runner._states.body
        ends = self.is_unwinding or (self.runner._scope.cancel_called and state != "Stopped")
        if state is not None and not ends:
            self.seen.setdefault(state, []).append(alive)

    def _walk(self, task: trio.lowlevel.Task, inside: str | None, alive: set[str]) -> None:
        for number, nursery in enumerate(task.child_nurseries):
            if inside == "connector" and nursery.cancel_scope.cancel_called:
                self.is_unwinding = True
            for child in nursery.child_tasks:
                if child.name in TASKS:
                    alive.add(child.name)
                    self.parents[child.name] = inside, number if inside is not None else 0
                if inside not in ("session", "ticker", "committer"):
                    self._walk(child, child.name if child.name in TASKS else inside, alive)


async def live(path: Path, clock: trio.testing.MockClock) -> Sight:
    """Live through a first link, an outage, a return with a backlog, and a stop with a flush."""
    unit, aggregator = Unit(), Aggregator(handling_time_s=0.01)
    async with trio.open_nursery() as nursery:
        network = Network(aggregator, nursery, Middle(), 0.05)
        dispatcher = EngineDispatcher("host", handlers=unit, open_stream=network.open_stream)

        async def offload(commit: object) -> None:
            await trio.lowlevel.checkpoint()
            commit()  # type: ignore[operator]

        with DurableOutbox(path, clock=trio.current_time) as outbox:
            runner = EngineRunner(
                dispatcher, unit, unit, outbox=outbox, offload=offload, rng=Middle(),
                clock=wall_clock,
            )  # fmt: skip
            # Otherwise the state is over within one step.
            runner.failed_callback = trio.lowlevel.checkpoint
            sight = Sight(runner)
            trio.lowlevel.add_instrument(sight)
            try:
                await nursery.start(runner.run)
                await trio.sleep(3)
                async with aggregator.outage(kill=True):
                    await trio.sleep(20)
                await trio.sleep(20)
                runner.post(unit.create_wpn_run_started_msg())
                await runner.shutdown()
            finally:
                trio.lowlevel.remove_instrument(sight)
        nursery.cancel_scope.cancel()
    return sight


def tree(parents: dict[str, tuple[str | None, int]]) -> str:
    """Draw the tree from what was seen."""
    lines: list[tuple[str, str]] = [("EngineRunner.run()", ""), ("root nursery", "")]

    def draw(owner: str | None, number: int, indent: str) -> None:
        names = NURSERIES[owner]
        children = [name for name in TASKS if parents.get(name) == (owner, number)]
        deeper = number + 1 < len(names)
        for place, child in enumerate(children):
            last = place == len(children) - 1 and not deeper
            lines.append((f"{indent}{'└' if last else '├'} {child}", TASKS[child]))
            if child in NURSERIES:
                below = indent + ("    " if last else "│   ")
                name = NURSERIES[child][0]
                lines.append((f"{below}└ {name}", NURSERY_NOTES[name]))
                draw(child, 0, below + "    ")
        if deeper:
            lines.append((f"{indent}└ {names[number + 1]}", NURSERY_NOTES[names[number + 1]]))
            draw(owner, number + 1, indent + "    ")

    draw(None, 0, "")
    width = max(len(what) for what, _ in lines) + 2
    return "\n".join(f"{what:{width}}{note}".rstrip() for what, note in lines)


def table(seen: dict[str, list[set[str]]]) -> str:
    """Draw the table of what was seen alive in which state."""
    rows = ["| state | always alive | at times |", "| --- | --- | --- |"]
    for state in STATES:
        if state in seen:
            always = set.intersection(*seen[state])
            some = set.union(*seen[state]) - always
            cells = (", ".join(t for t in TASKS if t in which) for which in (always, some))
            rows.append("| " + " | ".join((state, *cells)) + " |")
    return "\n".join(re.sub(r" +\|", " |", row) for row in rows)


async def test_the_tree_of_the_pages_is_the_one_that_lives(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The pages say which task is alive in which state, and in whose nursery."""
    sight = await live(tmp_path / "outbox", autojump_clock)
    found = {}
    for state, looks in sight.seen.items():
        always = set.intersection(*looks)
        found[state] = sorted(always), sorted(set.union(*looks) - always)
    assert found == {state: (sorted(a), sorted(b)) for state, (a, b) in ALIVE.items()}
    for page in (README, ARCHITECTURE):
        assert f"```\n{tree(sight.parents)}\n```" in page, tree(sight.parents)
    assert table(sight.seen) in ARCHITECTURE, table(sight.seen)


@pytest.mark.parametrize("text", list(TASKS.items()) + list(NURSERY_NOTES.items()))
def test_the_page_of_the_tree_names_every_task_and_nursery(text: tuple[str, str]) -> None:
    """The top of `_tasks.py` draws the same tree."""
    assert text[0] in (_tasks.__doc__ or "")
