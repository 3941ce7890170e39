"""The queue between the package's engine and its message builder."""

import logging
from collections import OrderedDict
from queue import Empty
from typing import Any

from trio_runner._say_once import SayOnce

logger = logging.getLogger(__name__)

FIT = float | int | str | bytes
"""What a message can hold as a value, besides what the package makes a float of."""


class LatestTags:
    """Holds each tag that has changed once, however often the engine puts it in.

    Takes the place of the engine's `tag_updates`, a queue. The engine ticks three times between two
    samples and queues every tag that changes each time; the package's builder makes a model of each
    that it takes out, and keeps the last. With 1,000 tags these were 3,000 models a sample.

    The engine's thread puts, Trio's takes: each step is one operation in C, which is atomic.

    A tag whose value no message can hold is left out and told of once: the package would lose the
    whole sample with it.
    """

    def __init__(self) -> None:
        self._tags: OrderedDict[str, Any] = OrderedDict()
        self._say = SayOnce(logger)

    def put(self, tag: Any) -> None:
        """Note that a tag has changed; its value is read when it is taken out."""
        self._tags[tag.name] = tag

    def get_nowait(self) -> Any:
        """Take out the tag that changed first. Raises queue.Empty."""
        while self._tags:
            try:
                tag = self._tags.popitem(last=False)[1]
            except KeyError:
                break
            if self._is_fit(tag):
                return tag
        raise Empty

    def _is_fit(self, tag: Any) -> bool:
        value = tag.simulated_value if tag.simulated else tag.value
        if value is None or isinstance(value, FIT) or hasattr(value, "__float__"):
            return True
        text = "The tag %r is left out: its value has to be a number, a text or None, not a %s"
        kind = type(value).__name__
        self._say(logging.ERROR, text, tag.name, kind, about=tag.name)
        return False

    def task_done(self) -> None:
        """Do nothing: nobody waits until the queue is empty."""
