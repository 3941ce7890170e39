"""The real aggregator's installation: a Python that runs it, and its own virtual environment.

Another kind of environment has this project in it too, to run the real engine of that version.
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
_MINORS = (13, 12, 14)  # the first that is there is taken; 0.1.1585 was published for 3.13
PROJECT = Path(__file__).parents[2]
_CACHE = PROJECT / ".cache"

HOW_TO_GET_ONE = (
    f"the real aggregator (openpectus {VERSION}) needs Python 3.12 or newer: put python3.13 on the "
    f"PATH, or install one with pyenv, or name one in {PYTHON_VARIABLE}"
)


class Unavailable(Exception):
    """What a test needs cannot be had here; the message says why, and what to do."""


def aggregator_command() -> Path:
    """Return the path of the real `pectus-aggregator`, installed by the first call of all.

    Several test runs may call at once. Raises `Unavailable`.
    """
    return _environment("openpectus", VERSION, [f"openpectus=={VERSION}"]) / "pectus-aggregator"


def both_of_version(version: str) -> Path:
    """Return the folder of the commands of this project and of an `openpectus` beside it.

    Installed as a user does, by the first call of all. Raises `Unavailable`.
    """
    what = ["--editable", f"{PROJECT}[openpectus]", f"openpectus=={version}"]
    return _environment("both", version, what)


def python_with(package: str, version: str) -> tuple[Path, Path]:
    """Return a Python that has a package of this version alone, and the folder it is in.

    Raises `Unavailable`.
    """
    commands = _environment(package, version, [f"{package}=={version}"])
    (folder,) = commands.parent.glob("lib/python3*/site-packages")
    return commands / "python", folder


def _environment(name: str, version: str, what: Sequence[str]) -> Path:
    python, minor = find_python()
    make = partial(_install, python, what)
    return made_once(f"{name}-{version}-py3.{minor}", make) / "bin"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder in the cache that `make` fills, for the first caller of all.

    Several test runs may call at once. What `make` raises is passed on; then the next call tries.
    """
    home = _CACHE / name
    _CACHE.mkdir(exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A virtual environment holds its own path, so it cannot be made elsewhere and moved into
        # place: the marker, written last, tells a whole one from one whose making was cut short.
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            make(home)
            (home / "complete").touch()
    return home


def find_python() -> tuple[str, int]:
    """Return an interpreter that can run the real aggregator, and its minor version."""
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
    # Asked rather than read off its name: a pyenv shim is there and executable, and still fails.
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
    """Run a command to its end. Raises `Unavailable`, with what it said, if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
