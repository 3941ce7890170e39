"""Files that a command writes where an option names them, and the error if it cannot."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO


class Unwritable(Exception):
    """A file cannot be opened, written or closed; the message names it and its option."""


@contextmanager
def written(option: str, path: str | None) -> Generator[TextIO | None, None, None]:
    """Open the file that an option names, for the block that writes it; None if it names none.

    Raises Unwritable for every OSError, including those of the block.
    """
    if path is None:
        yield None
        return
    try:
        # Write the same bytes on every system.
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise Unwritable(f"argument --{option}: cannot write {path}: {error.strerror}") from error
