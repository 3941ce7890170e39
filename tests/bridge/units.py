"""The package's demo unit, with its engine ticked by hand: no thread and no waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from openpectus.engine.configuration import demo_uod
from openpectus.protocol import models as package_models

from trio_runner.bridge import UodEngine, load_uod

DEMO_UOD = Path(str(demo_uod.__file__))


@define(eq=False)
class Ticked:
    """An engine, and the time that it is told."""

    engine: UodEngine
    now: float = field(default=1.7e9, init=False)

    @property
    def inside(self) -> Any:
        """The package's engine."""
        return self.engine._engine

    def tick(self, times: int = 1) -> None:
        """Let the engine tick, 0.1 s at a time."""
        for _ in range(times):
            self.now += 0.1
            self.inside.tick(self.now, 0.1)

    def set_method(self, *lines: str) -> None:
        """Give the engine a method."""
        self.inside.set_method(package_models.Method.from_pcode("\n".join(lines)))

    def press(self, button: str) -> None:
        """Give the engine a control command."""
        self.inside.execute_control_command_from_user(button)
        self.tick(3)


@contextmanager
def demo_engine(**options: Any) -> Iterator[UodEngine]:
    """Yield an engine of the demo unit, connected to its hardware."""
    engine = UodEngine(load_uod(str(DEMO_UOD)), **options)
    assert engine.connect()
    yield engine
    engine.stop()


@contextmanager
def ticked_demo(**options: Any) -> Iterator[Ticked]:
    """Yield an engine of the demo unit that ticks only when it is told to."""
    with demo_engine(**options) as engine:
        ticked = Ticked(engine)
        ticked.inside.run(skip_timer_start=True)
        yield ticked
