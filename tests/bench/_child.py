"""The processes of a benchmark, and the environments in which they run."""

import fcntl
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.helpers.install import _CACHE, aggregator_command, find_python

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
"""The time for the longest wait (s), the replay of an hour by the asyncio engine."""

Json = dict[str, Any]


@frozen
class Pythons:
    """The interpreters of both sides, of the same version."""

    ours: Path
    theirs: Path
    version: str

    def of(self, side: str) -> Path:
        """Return the interpreter that runs a module of this package."""
        return self.theirs if side in ("asyncio_side", "op_receiver") else self.ours


def pythons() -> Pythons:
    """Return the interpreters; the very first call installs what they need.

    Raises `tests.helpers.install.Unavailable`.
    """
    theirs = aggregator_command().with_name("python")
    python, minor = find_python()
    home = _CACHE / f"bench-py3.{minor}"
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            _install(python, home)
    return Pythons(home / "bin" / "python", theirs, f"3.{minor}")


def _install(python: str, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([python, "-m", "venv", home], check=True)
    pip = home / "bin" / "pip"
    command: list[str | Path] = [pip, "install", "--quiet", "--editable", ROOT]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (home / "complete").touch()


@define(eq=False)
class Child:
    """A process that sends and receives lines of JSON."""

    process: subprocess.Popen[str]
    _told: "queue.SimpleQueue[Json | None]" = field(factory=queue.SimpleQueue, init=False)

    def __attrs_post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._told.put(json.loads(line))
        self._told.put(None)

    def tell(self, do: str, **what: object) -> None:
        """Tell the process to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self.process.stdin.flush()

    def hear(self, key: str, timeout_s: float = PATIENCE_S) -> Json:
        """Return the next line that has this key. Raises queue.Empty if none comes in time."""
        while True:
            told = self._told.get(timeout=timeout_s)
            if told is None:
                raise RuntimeError(f"{self.process.args!r} ended; {key} was to come")
            if key in told:
                return told

    def ask(self, do: str, key: str, **what: object) -> Json:
        """Tell the process to do something, and return what it says about that."""
        self.tell(do, **what)
        return self.hear(key)


@contextmanager
def child(where: Pythons, module: str, **job: object) -> Generator[Child, None, None]:
    """Run a module of this package as a process, which is gone after the block."""
    process = subprocess.Popen(
        [where.of(module), "-m", f"tests.bench.{module}", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def receiver(
    where: Pythons, module: str, **job: object
) -> Generator[tuple[Child, int], None, None]:
    """Run a receiver, or what stands in front of one; yield it and its first port."""
    with child(where, module, **job) as process:
        yield process, process.hear("ports")["ports"][0]
