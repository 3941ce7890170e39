"""The few ways in which a connection fails, each with a message that says what to do.

Everything that the network, the peer or a refused registration can do arrives as a `NetworkError`:
the runner masks it, waits and dials again. Anything else is a bug, ours or the engine's, and ends
`EngineRunner.run()` with its traceback.
"""


class TrioRunnerError(Exception):
    """The base of all errors that this package defines."""


class NetworkError(TrioRunnerError):
    """The aggregator cannot be reached, does not let us in, or the link to it has ended.

    `refused` is true when the host refused the connection at once: it is up, the aggregator is not,
    and another try costs nothing. `in_line` is true when the connection was accepted but we were
    not let in before the dial's time was over. `retry_after_s` is for how long no other try is
    wanted (s).
    """

    refused: bool = False
    in_line: bool = False
    retry_after_s: float = 0


class LinkLost(NetworkError):
    """An established link has ended; the outcome of messages that were not answered is unknown."""


class DialError(NetworkError):
    """A dial did not lead to a link."""


class AggregatorUnreachable(DialError):
    """Nothing answers at the address, or not in time."""

    def __init__(
        self,
        message: str,
        *,
        refused: bool = False,
        in_line: bool = False,
        retry_after_s: float = 0,
    ) -> None:
        super().__init__(message)
        self.refused = refused
        self.in_line = in_line
        self.retry_after_s = retry_after_s


class NotAnAggregator(DialError):
    """Something answers at the address, but not as an Open Pectus aggregator does."""


class RegistrationRefused(DialError):
    """The aggregator refused the registration; only a person can change that."""


class SecretRefused(RegistrationRefused):
    """The aggregator's secret is not this engine's."""


class VersionRefused(RegistrationRefused):
    """The aggregator wants engines of another version; `wanted` says which."""

    def __init__(self, message: str, *, wanted: str) -> None:
        super().__init__(message)
        self.wanted = wanted


class AlreadyConnected(DialError):
    """The aggregator still holds a connection of an engine with this id."""


class CommandError(TrioRunnerError):
    """Raise it in a command handler to tell the person at the page why a command cannot be done.

    `caller_error` is true if the person asked for something impossible; the page then shows the
    message as their error. It is false if the engine failed.
    """

    def __init__(self, message: str, *, caller_error: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.caller_error = caller_error
