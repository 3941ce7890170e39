"""`--version`: the versions that matter for a question or a report."""

from argparse import SUPPRESS, Action, ArgumentParser, _ArgumentGroup
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from platform import python_version


def add_option(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add `--version`."""
    parser.add_argument("--version", action=_Version)


class _Version(Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings, dest=SUPPRESS, nargs=0, help="show the installed versions and exit"
        )

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        text = f"trio-runner {version('trio-runner')}, Python {python_version()}"
        with suppress(PackageNotFoundError):
            text += f", openpectus {version('openpectus')}"
        print(text)
        parser.exit()
