"""The queue between the package's engine and its message builder."""

from collections import OrderedDict
from queue import Empty
from typing import Any


class LatestTags:
    """Holds each tag that has changed once, however often the engine puts it in.

    Takes the place of the engine's `tag_updates`, a queue. The engine ticks three times between two
    samples and queues every tag that changes each time; the package's builder makes a model of each
    that it takes out, and keeps the last. With 1,000 tags these were 3,000 models a sample.

    The engine's thread puts, Trio's takes: each step is one operation in C, which is atomic.
    """

    def __init__(self) -> None:
        self._tags: OrderedDict[str, Any] = OrderedDict()

    def put(self, tag: Any) -> None:
        """Note that a tag has changed; its value is read when it is taken out."""
        self._tags[tag.name] = tag

    def get_nowait(self) -> Any:
        """Take out the tag that changed first. Raises queue.Empty."""
        try:
            return self._tags.popitem(last=False)[1]
        except KeyError:
            raise Empty from None

    def task_done(self) -> None:
        """Do nothing: nobody waits until the queue is empty."""
