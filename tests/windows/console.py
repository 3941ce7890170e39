"""Run the command, and let events of its console come as Windows does.

`python -m tests.windows.console 5,0 simulated ...`: when a dial of the aggregator has failed again,
the events come, in this example a log-off and then Ctrl-C. What the system does is imitated: it
starts a thread in the process that calls the console's handlers, and when that has returned from a
closed console, it ends the process.

Wine itself can send no event but Ctrl-C, and its C library makes no SIGBREAK of Ctrl-Break.
"""

import ctypes
import logging
import sys
import threading
from ctypes import wintypes

from trio_runner._cli import main
from trio_runner._cli._console import CLOSED

assert sys.platform == "win32"

PATIENCE_MS = 5000
ENDED_BY_EVENT = 0xC000013A  # STATUS_CONTROL_C_EXIT


class Events(logging.Handler):
    """Lets the events come when the log says that a dial has failed."""

    def __init__(self, events: list[int]) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        if self._events and "Disconnected -> Failed" in record.getMessage():
            events, self._events = self._events, []
            threading.Thread(target=lambda: list(map(let_come, events)), daemon=True).start()


def let_come(event: int) -> None:
    """Do what the system does, and report it."""
    kernel = ctypes.WinDLL("kernel32")
    kernel.CreateThread.argtypes = [wintypes.LPVOID] * 4 + [wintypes.DWORD, wintypes.LPVOID]
    kernel.CreateThread.restype = wintypes.HANDLE
    kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    kernel.TerminateProcess.argtypes = [wintypes.HANDLE, wintypes.UINT]
    print(f"event {event} comes", flush=True)  # noqa: T201
    routine = ctypes.WinDLL("kernelbase").CtrlRoutine
    thread = kernel.CreateThread(None, None, routine, event, 0, None)
    kernel.WaitForSingleObject(thread, PATIENCE_MS)
    if event == CLOSED:
        kernel.TerminateProcess(wintypes.HANDLE(-1), ENDED_BY_EVENT)
    print(f"event {event} was handled", flush=True)  # noqa: T201


if __name__ == "__main__":
    events = Events([int(number) for number in sys.argv[1].split(",")])
    logging.getLogger("trio_runner").addHandler(events)
    sys.exit(main(sys.argv[2:]))
