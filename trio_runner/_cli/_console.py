"""What Windows tells console programs apart from Ctrl-C and Ctrl-Break."""

import signal
import sys
import time

CLOSED, LOGGED_OFF, SHUT_DOWN = 2, 5, 6
"""Windows's numbers for CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT and CTRL_SHUTDOWN_EVENT."""

HELD_S = 60
"""Longer than Windows waits for a program (s): it waits 5 s, at a shutdown 20 s for a service."""


def on_event(event: int) -> bool:
    """Handle an event, in one of Windows's threads; return whether to skip all other handlers.

    Windows ends the process as soon as this returns from a closed console or a shutdown. So raise
    SIGBREAK, and then stay here until the process has ended in order.

    Only services are told that somebody's session ends, and they must go on. C's own handler would
    take that event for SIGBREAK too.
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
        """Do nothing: elsewhere, signals report all of this."""
