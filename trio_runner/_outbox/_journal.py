"""The interface through which an outbox is told of every change of its line."""

from trio_runner._outbox._entry import Entry


class Journal:
    """A listener for every change of the line; this one keeps nothing.

    It is called with the outbox's lock held, so it only notes the change and does no I/O.
    """

    def added(self, entry: Entry) -> None:
        """Note a message that was put in."""

    def changed(self, entry: Entry) -> None:
        """Note that a message has another body from now on."""

    def sent(self, entry: Entry) -> None:
        """Note a message that may have arrived from now on."""

    def gone(self, entry: Entry) -> None:
        """Note a message that was delivered, thinned, merged or moved to another file."""

    def set_aside(self, entry: Entry, why: str) -> None:
        """Note a message that is given up for good, and why."""
