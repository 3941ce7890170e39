"""A link as the oracle sees it: what was sent on it, what was answered, and what it may carry."""

import json
import math
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.protocol import engine_messages as em

Key = tuple[str, str]
"""Which event or sample it is: the kind, and what only this one has."""

SAMPLE = "sample"

CALL_S = 10.0
"""After so long without an answer a link must have ended (s)."""

WORK_S = 0.25
"""The work of ours that may stand at the aggregator (s)."""

ROUNDING_S = 0.25


def key_of(message: em.EngineMessage) -> Key | None:
    """Return which event or sample a message is, None for a state."""
    match message:
        case em.RunStartedMsg() | em.RunStoppedMsg():
            return type(message).__name__, message.run_id
        case em.WebPushNotificationMsg():
            return "notification", str(message.notification.body)
        case em.ErrorLogMsg():
            return "errors", message.log.entries[0].message
        case em.TagsUpdatedMsg():
            return SAMPLE, str(message.tags[0].value)
    return None


def key_of_body(kind: str, body: str) -> Key | None:
    """Return the same of an encoded message, without decoding all of it."""
    if kind == "TagsUpdatedMsg":
        return SAMPLE, str(json.loads(body)["tags"][0]["value"])
    if kind in ("RunStartedMsg", "RunStoppedMsg"):
        return kind, json.loads(body)["run_id"]
    if kind == "WebPushNotificationMsg":
        return "notification", json.loads(body)["notification"]["body"]
    if kind == "ErrorLogMsg":
        return "errors", json.loads(body)["log"]["entries"][0]["message"]
    return None


@define(eq=False)
class Sent:
    """A message on a link, until it is answered."""

    key: Key | None
    kind: str
    body: str
    repeats: bool
    """Whether it repeats the beginning of the open run on a new link."""
    at: float = field(factory=trio.current_time, init=False)
    beside: int = field(default=0, init=False)
    """How many messages were unanswered then, itself included."""


@define(eq=False)
class WatchedLink:
    """The rules that concern one link alone; `expect` is the oracle's."""

    number: int
    expect: Callable[[object, str], None]
    is_open: bool = field(default=True, init=False)
    messages: int = field(default=0, init=False)
    """How many were sent on it."""
    last_number: int = field(default=0, init=False)
    """The number of the last event or sample that was not tried again after a failure."""
    opened_at: float = field(factory=trio.current_time, init=False)
    told: set[str] = field(factory=set, init=False)
    """The types of states that were sent on it."""
    _heard: dict[str, str] = field(factory=dict, init=False)
    """The state of each type that was answered last."""
    _unanswered: dict[int, Sent] = field(factory=dict, init=False)
    _samples_answered: int = field(default=0, init=False)
    _least_s: float = field(default=math.inf, init=False)
    """The shortest time that the answer to a sample took (s)."""
    _in_line_s: float = field(default=0.0, init=False)
    """What the answer to the last sample took longer (s)."""
    _in_line: int = field(default=1, init=False)
    """How many messages were unanswered when that sample was sent."""

    def is_unanswered(self, key: Key) -> bool:
        """Tell whether a message is under way, or its answer is."""
        return any(sent.key == key for sent in self._unanswered.values())

    def is_state_unanswered(self, kind: str) -> bool:
        """Tell whether a state is under way: the next of its type waits for its answer."""
        return any(sent.kind == kind for sent in self._unanswered.values())

    def send(self, number: int, sent: Sent) -> None:
        """Check a message that goes out beside those that are unanswered."""
        self._check_introduction(sent.kind)
        self._check_barrier(number, sent)
        if sent.key is None:
            self.expect(
                self._heard.get(sent.kind) != sent.body,
                f"{sent.kind} was sent again, and it is the same",
            )
            self.told.add(sent.kind)
        elif sent.key[0] == SAMPLE:
            self._check_work()
        sent.beside = len(self._unanswered) + 1
        self._unanswered[number] = sent

    def _check_introduction(self, kind: str) -> None:
        self.messages += 1
        expected = {1: "UodInfoMsg", 2: "MethodMsg"}.get(self.messages, kind)
        self.expect(kind == expected, f"{kind} was sent as the {self.messages}. message of a link")

    def _check_barrier(self, number: int, sent: Sent) -> None:
        waiting = len(self._unanswered)
        self.expect(
            not (_is_event(sent) and waiting), f"{sent.kind} {number} overtook {waiting} unanswered"
        )
        for other in self._unanswered.values():
            self.expect(
                not _is_event(other),
                f"{sent.kind} {number} was sent while {other.key} was unanswered",
            )

    def _check_work(self) -> None:
        """Check that what stands at the aggregator is little, by what its answers have shown."""
        samples = 1 + sum(1 for sent in self._unanswered.values() if sent.key is not None)
        # Each answer lets one more be tried: who has seen few knows little of how long they take.
        most = 1.0 + self._samples_answered
        if self._in_line_s > WORK_S:
            # So many stood there when the last one was sent, and this is what it then waited: as
            # many as would have been done in time may stand there now; one always may.
            most = min(most, max(1.0, self._in_line * WORK_S / self._in_line_s))
        self.expect(samples <= most, f"{samples} samples stand at the aggregator, not {most:.0f}")

    def answer(self, number: int) -> Sent | None:
        """Note that a message was answered, and return it."""
        sent = self._unanswered.pop(number, None)
        self.expect(sent is not None, f"message {number} was answered twice to the sender")
        if sent is None:
            return None
        if sent.key is None:
            self._heard[sent.kind] = sent.body
        elif sent.key[0] == SAMPLE:
            took_s = trio.current_time() - sent.at
            self._samples_answered += 1
            self._least_s = min(self._least_s, took_s)
            self._in_line_s, self._in_line = took_s - self._least_s, sent.beside
        return sent

    def check_waiting(self) -> None:
        """Check that the link does not outlive an answer that does not come."""
        now = trio.current_time()
        waited = now - min((sent.at for sent in self._unanswered.values()), default=now)
        self.expect(waited <= CALL_S + ROUNDING_S, f"a link lived {waited:.1f} s unanswered")


def _is_event(sent: Sent) -> bool:
    return sent.key is not None and sent.key[0] != SAMPLE
