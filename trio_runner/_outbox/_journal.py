"""How an outbox is told of every change of its line."""

from trio_runner._outbox._entry import Entry


class Journal:
    """Is told of every change of the line; this one keeps none of it.

    It is called with the outbox's lock held, so it notes the change and does no I/O.
    """

    def added(self, entry: Entry) -> None:
        """Note a message that was put in."""

    def changed(self, entry: Entry) -> None:
        """Note that a message has another body from now on."""

    def sent(self, entry: Entry) -> None:
        """Note a message that may have arrived from now on."""

    def gone(self, entry: Entry) -> None:
        """Note a message that was delivered or thinned."""

    def set_aside(self, entry: Entry, why: str) -> None:
        """Note a message that the aggregator will never take."""
