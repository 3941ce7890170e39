"""Log a thing loudly the first time and quietly from then on."""

import logging

from attrs import define, field

THINGS_MAX = 100
"""How many different things are told apart; beyond that, every new thing is logged quietly."""


@define(eq=False)
class SayOnce:
    """Remembers what it has logged, so that repetitions do not fill the log.

    The memory is bounded, since a peer may come up with a new text each time. Once `THINGS_MAX`
    things are known, new things are logged at DEBUG, like repetitions.
    """

    _logger: logging.Logger
    _said: set[str] = field(factory=set, init=False)

    def __call__(
        self,
        level: int,
        text: str,
        *values: object,
        about: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Log `text % values` at `level` the first time, at DEBUG from then on.

        Two messages are about the same thing if their `about` is equal; by default it is the whole
        message. `error` adds its traceback.
        """
        thing = text % values if about is None else about
        if thing not in self._said and len(self._said) < THINGS_MAX:
            self._said.add(thing)
        else:
            level = logging.DEBUG
        self._logger.log(level, text, *values, exc_info=error, stacklevel=2)

    def forget(self) -> None:
        """Let everything be news again."""
        self._said.clear()
