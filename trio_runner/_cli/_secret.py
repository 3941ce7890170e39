"""Where the aggregator's secret comes from: preferably a place that no other user can see."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "TRIO_RUNNER_SECRET"
"""The environment variable that holds the secret."""

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The environment variable with which systemd names a service's credentials folder; the file in it
is `secret`."""

LENGTH_MAX = 4096
"""The most bytes in a secret; a longer file must be something else."""

HELP = (
    f"read the secret from this file (default: {VARIABLE} in the environment, or systemd's"
    " credential 'secret')"
)


class SecretUnusable(Exception):
    """The secret cannot be had; the message says which argument is wrong and why."""


def find_secret(
    given: str,
    file: str | None,
    environment: Mapping[str, str] = os.environ,
    *,
    source: str = "argument --secret-file",
) -> str:
    """Return the secret from the arguments or the environment, or "" if there is none.

    Raises SecretUnusable, which names `source` if the file is at fault.
    """
    if given and file is not None:
        raise SecretUnusable("argument --secret-file: not allowed with argument -secret/--secret")
    if given:
        return given
    if file is not None:
        return _read(Path(file), source)
    if environment.get(VARIABLE):
        return environment[VARIABLE]
    if environment.get(CREDENTIALS):
        path = Path(environment[CREDENTIALS], "secret")
        if path.exists():
            return _read(path, f"environment {CREDENTIALS}")
    return ""


def warn_of_visible_secret() -> None:
    """Warn in the log that the secret is an argument, and say what to do instead."""
    logger.warning(
        "The secret is on the command line, where everybody can see it in the list of processes:"
        " give it by --secret-file FILE, or as %s in the environment",
        VARIABLE,
    )


def _read(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LENGTH_MAX + 1)
        text = content.decode("utf-8-sig").strip()  # editors add a BOM and a line end
    except OSError as error:
        raise SecretUnusable(f"{source}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SecretUnusable(f"{source}: {path} is not UTF-8 text") from None
    if not text:
        raise SecretUnusable(f"{source}: there is no secret in {path}")
    if len(content) > LENGTH_MAX or len(text.splitlines()) > 1:
        raise SecretUnusable(f"{source}: {path} has more in it than a secret: it must be one line")
    return text
