"""The one error of this layer."""

from trio_runner._errors import TrioRunnerError


class DecodeError(TrioRunnerError):
    """What came over the wire does not follow the protocol.

    `path` is the place in the JSON, such as `$.tags[0].tick_time`, or `$` for the whole. The
    message starts with the path and says what was expected there and what was found.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
