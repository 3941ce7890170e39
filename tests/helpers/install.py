"""Installing the real aggregator: a Python that can run it, and a virtual environment for it.

Another kind of environment also contains this project, to run the real engine of that version.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

VERSION = "0.1.1585"
PYTHON_VARIABLE = "TRIO_RUNNER_OPENPECTUS_PYTHON"
_MINORS = (13, 12, 14)  # the first one found is used; 0.1.1585 was published for 3.13
PROJECT = Path(__file__).parents[2]
_CACHE = PROJECT / ".cache"

HOW_TO_GET_ONE = (
    f"the real aggregator (openpectus {VERSION}) needs Python 3.12 or newer: put python3.13 on the "
    f"PATH, or install one with pyenv, or name one in {PYTHON_VARIABLE}"
)


class Unavailable(Exception):
    """Something that a test needs is not available; the message says why, and what to do."""


def aggregator_command() -> Path:
    """Return the path of the real `pectus-aggregator`; the first call ever installs it.

    Several test runs may call at once. Raises `Unavailable` if it cannot be installed.
    """
    return _environment("openpectus", VERSION, [f"openpectus=={VERSION}"]) / "pectus-aggregator"


def both_of_version(version: str) -> Path:
    """Return the folder with the commands of this project and of an `openpectus` beside it.

    The first call ever installs both, as a user does. Raises `Unavailable` if that fails.
    """
    what = ["--editable", f"{PROJECT}[openpectus]", f"openpectus=={version}"]
    return _environment("both", version, what)


def python_with(package: str, version: str) -> tuple[Path, Path]:
    """Return a Python with only this version of a package, and the package's folder.

    Raises `Unavailable` if it cannot be installed.
    """
    commands = _environment(package, version, [f"{package}=={version}"])
    (folder,) = commands.parent.glob("lib/python3*/site-packages")
    return commands / "python", folder


def _environment(name: str, version: str, what: Sequence[str]) -> Path:
    python, minor = find_python()
    make = partial(_install, python, what)
    return made_once(f"{name}-{version}-py3.{minor}", make) / "bin"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder in the cache; the first call ever lets `make` fill it.

    Several test runs may call at once. If `make` raises, the error is passed on and the next call
    tries again.
    """
    home = _CACHE / name
    _CACHE.mkdir(exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A virtual environment contains its own path, so it cannot be made elsewhere and moved into
        # place. The marker is written last, so without it the making was cut short.
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            make(home)
            (home / "complete").touch()
    return home


def find_python() -> tuple[str, int]:
    """Return an interpreter that can run the real aggregator, and its minor version.

    Raises `Unavailable` if there is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    for candidate in [named] if named else _candidates():
        minor = _minor_version(candidate)
        if minor is not None and minor >= 12:
            return candidate, minor
    raise Unavailable(f"{named} is not one; {HOW_TO_GET_ONE}" if named else HOW_TO_GET_ONE)


def _candidates() -> Iterator[str]:
    for minor in _MINORS:
        on_path = shutil.which(f"python3.{minor}")
        if on_path is not None:
            yield on_path
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in _MINORS:
        yield from map(str, sorted(versions.glob(f"3.{minor}*/bin/python3"), reverse=True))


def _minor_version(python: str) -> int | None:
    # Ask the interpreter, since its name may lie: a pyenv shim exists and is executable, but fails.
    question = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = answer.stdout.split()
    return int(words[1]) if answer.returncode == 0 and words[:1] == [b"3"] else None


def _install(python: str, what: Sequence[str], home: Path) -> None:
    run(python, "-m", "venv", str(home))
    run(str(home / "bin" / "pip"), "install", "--quiet", *what)


def run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Raises `Unavailable` with its output if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
