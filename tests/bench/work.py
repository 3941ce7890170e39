"""The work that both runners get: the values of a stub engine. It uses only the standard library.

A tag is a tuple `(name, tick_time, value, unit, formatted, direction)`, from which each side makes
its own kind of message.
"""

import gc
import math
import random
import threading
import time
from collections.abc import Callable

Tag = tuple[str, float, float | int | str | None, str | None, str | None, str]
Line = tuple[str, str, float, float | None, float | None, list[Tag], list[Tag]]
"""A line of a run log: id, command, start, end, progress, values at the start and at the end."""

EPOCH = 1_700_000_000.0
STEADY_S = 0.3


def begin() -> None:
    """Make the garbage collector run as rarely as the command `trio-runner` does, on both sides."""
    gc.set_threshold(100_000, 50, 1_000)


class Plant:
    """A unit whose tags all change with every sample, as sensors do."""

    def __init__(self, tags: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._values = [self._random.uniform(1, 100) for _ in range(tags)]
        self._heads = [(f"Transmitter {n:02}", UNITS[n % len(UNITS)]) for n in range(tags)]

    def tags(self, now: float) -> list[Tag]:
        """Return the tags, all changed: half of them with all their digits, the others rounded."""
        gauss = self._random.random
        tags: list[Tag] = []
        for n, (name, unit) in enumerate(self._heads):
            value: float | int = self._values[n] + gauss() - 0.5
            self._values[n] = value
            if n % 4 == 2:
                value = round(value, 3)
            elif n % 4 == 3:
                value = int(value * 10)
            tags.append((name, now, value, unit, None, "input"))
        return tags


UNITS = ("L/h", "bar", None, "degC", "kg")


class Changes:
    """A tag that changes now and then; its value is the time of the change (s, monotonic)."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next = time.monotonic() + self._random.uniform(0, 1)
        self._last = 0.0

    def tag(self, now: float) -> Tag:
        """Return the tag as it is now."""
        while self._next <= (clock := time.monotonic()):
            self._last = self._next
            # The changes are further apart than two samples, so that none of them is overwritten.
            self._next = max(self._last + self._random.uniform(0.45, 0.75), clock - 2)
        return ("Changed", now, self._last, "s", None, "input")


class Recording:
    """An hour of a method of 100 instructions, on a unit of 20 tags of which half change.

    Every tenth instruction is a Wait, which tells its progress once a second. The `tags` of the
    unit can be had for any second of the hour. A line of the run log contains 5 of them, the
    readings.
    """

    DURATION_S = 3600.0
    LATE_S = 3300.0
    """When nearly all lines have ended (s)."""
    RUN_ID = "7f2c3a9e-4b1d-4c62-9f0e-1d2b3c4a5e6f"

    def __init__(self, lines: int = 100) -> None:
        self._count = lines
        self._each_s = self.DURATION_S / lines
        self._done: list[Line] = []

    def tags(self, t: float) -> list[Tag]:
        """Return all tags at t seconds of the hour, those that change first."""
        return self.changing(t) + [
            (f"Setting {n:02}", EPOCH, 12.5 * n, UNITS[n % 5], None, "output") for n in range(10)
        ]

    def changing(self, t: float) -> list[Tag]:
        """Return the tags that change at t seconds of the hour."""
        now = EPOCH + t
        return [
            (
                f"Transmitter {n:02}",
                now,
                # The fast sine takes the place of noise, and is the same for both runners.
                50 + n + 10 * math.sin(t / (60 + n)) + math.sin(t * 7919.0 * (n + 1)),
                UNITS[n % 5],
                None,
                "input",
            )
            for n in range(10)
        ]

    def lines(self, t: float) -> list[Line]:
        """Return the run log at t seconds of the hour; lines that have ended stay as they are."""
        count = min(int(t / self._each_s), self._count)
        while len(self._done) < count:
            self._done.append(self._line(len(self._done), ended=True, t=t))
        lines = self._done[:count]
        return lines if count == self._count else [*lines, self._line(count, ended=False, t=t)]

    def _line(self, number: int, *, ended: bool, t: float) -> Line:
        start_s, end_s = number * self._each_s, (number + 1) * self._each_s
        is_wait = number % 10 == 9
        progress = int(t - start_s) / self._each_s if is_wait and not ended else None
        return (
            f"{number:08d}-bb00-4558-baa5-0d8858b95a74",
            "Wait: 36 s" if is_wait else f"Mark: {number}",
            EPOCH + start_s,
            EPOCH + end_s if ended else None,
            progress,
            self.changing(start_s)[:5],
            self.changing(end_s)[:5] if ended else [],
        )

    def executed(self, t: float) -> list[str]:
        """Return the ids of the method's lines that have run."""
        return [f"line-{n}" for n in range(min(int(t / self._each_s), self._count))]


def repeat_every(interval_s: float, count: int, act: Callable[[], object]) -> None:
    """Do something so often at random times, this far apart on average (s); blocks the thread."""
    draw = random.Random(1)
    for _ in range(count):
        time.sleep(draw.uniform(0, 2 * interval_s))
        act()


def cpu() -> dict[str, float]:
    """Return the CPU time of the process and of its main thread (s), and the present time."""
    main_thread = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
    return {
        "cpu_s": time.process_time(),
        "thread_s": time.clock_gettime(main_thread),
        "now": time.monotonic(),
    }


def memory(pid: int | str = "self") -> dict[str, int]:
    """Return the present and the greatest memory of a process (bytes)."""
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {
        "rss": int(lines["VmRSS"].split()[0]) * 1024,
        "peak": int(lines["VmHWM"].split()[0]) * 1024,
    }
