"""What Windows tells the programs of a console besides Ctrl-C and Ctrl-Break."""

import signal
import sys
import time

CLOSED, LOGGED_OFF, SHUT_DOWN = 2, 5, 6
"""The numbers of Windows: CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT."""

HELD_S = 60
"""Longer than Windows waits for a program (5 s, a service at a shutdown 20 s)."""


def on_event(event: int) -> bool:
    """Carry out an event in a thread of Windows's; return whether no other handler is to do so.

    Windows ends the process as soon as this returns from a closed console or a shutdown. So it
    raises SIGBREAK, and then stays until the process has ended in order.

    The end of somebody's session is told to services alone, which go on; C's own handler would
    take it for SIGBREAK too.
    """
    if event in (CLOSED, SHUT_DOWN):
        signal.raise_signal(getattr(signal, "SIGBREAK"))  # noqa: B009 - typeshed's is Windows's
        time.sleep(HELD_S)
    return event in (CLOSED, LOGGED_OFF, SHUT_DOWN)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(on_event)

    def heed() -> None:
        """Let `on_event` come before C's own handler, for the rest of the process."""
        ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(_handler, True)

else:

    def heed() -> None:
        """Do nothing: signals tell it all here."""
