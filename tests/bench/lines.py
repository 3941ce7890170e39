"""How the processes of a benchmark talk: one line of JSON at a time, with the standard library."""

import json
import os
import sys
from typing import Any, NoReturn

Json = dict[str, Any]


def job() -> Json:
    """Return the job for which the process was started."""
    given: Json = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    return given


def tell(**what: object) -> None:
    """Send a line to the process that started this one."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear() -> Json:
    """Wait for the next line of the starting process; end with that process, or when it says so."""
    line = sys.stdin.readline()
    if not line:
        leave()
    told: Json = json.loads(line)
    if told["do"] == "stop":
        leave()
    return told


def leave() -> NoReturn:
    """End the process at once, since what a runner does at its end is not measured."""
    os._exit(0)
