"""The queue of changed tags between the package's engine and its message builder."""

import logging
from collections import OrderedDict
from queue import Empty
from typing import Any

from trio_runner._say_once import SayOnce

logger = logging.getLogger(__name__)

FIT = float | int | str | bytes
"""What a message can hold as a value, besides anything that the package converts to a float."""


class LatestTags:
    """Holds each changed tag once, however often the engine puts it in.

    This replaces the engine's `tag_updates`, a queue. The engine ticks three times between two
    samples and each time queues every tag that changes. The package's builder makes a model for
    every entry and keeps the last one of each tag. With 1,000 tags, this was 3,000 models per
    sample.

    The engine's thread puts tags in and Trio's thread takes them out. Each step is a single
    operation in C, which is atomic.

    A tag whose value does not fit into a message is left out and logged once. With it, the package
    would lose the whole sample.
    """

    def __init__(self) -> None:
        self._tags: OrderedDict[str, Any] = OrderedDict()
        self._say = SayOnce(logger)

    def put(self, tag: Any) -> None:
        """Note that a tag has changed; its value is read when the tag is taken out."""
        self._tags[tag.name] = tag

    def get_nowait(self) -> Any:
        """Take out the tag that changed first. Raises queue.Empty if there is none."""
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
        """Do nothing, since nobody waits until the queue is empty."""
