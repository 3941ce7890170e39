"""Let Python and Trio run on Wine 8, which lacks two things that every Windows has.

Python's `site` finds this in the tests' own folder, so that only the tests see it.
"""

import sys
from typing import Any

# Wine's WMI lacks a function that `platform.uname` of Python 3.13 calls, which would end the
# process. Without the module, Python finds the same in other ways.
vars(sys)["modules"]["_wmi"] = None

import trio._core._io_windows as io_windows  # noqa: E402
from trio._core._windows_cffi import _handle  # noqa: E402


def plain_handle(sock: Any, **_: object) -> Any:
    """Return the handle of the socket itself.

    Trio looks for the one that other software may have wrapped, and Wine cannot answer that.
    """
    return _handle(sock.fileno() if hasattr(sock, "fileno") else sock)


vars(io_windows)["_get_underlying_socket"] = plain_handle
