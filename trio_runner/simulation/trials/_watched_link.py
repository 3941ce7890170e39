"""A link as the oracle sees it: what was sent on it, what was answered, and what it may carry."""

import json
import math
import re
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner._outbox._shrinking import LEFT_OUT
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._sometimes import sometimes

Key = tuple[str, str]
"""The identity of an event or sample: its kind, and a text that no other of its kind has."""

SAMPLE = "sample"

CALL_S = 10.0
"""How long a link may live without an answer (s)."""

PATIENCE_MAX = 12
"""How many times longer an answer may take if its message was sent in vain before."""


def patience(tries: int) -> int:
    """Return how many times longer an answer may take after so many tries in vain."""
    return min(1 << tries, PATIENCE_MAX)


RUN_EVENTS = "RunStartedMsg", "RunStoppedMsg"

SILENT_S = 1.0
"""How much longer than any answer before one takes that is late (s)."""

THINNEST_BYTES_S = 1000
"""The rate by which messages get time to leave (bytes a second, not compressed)."""

ROUNDING_S = 0.25

MANY = 8
"""More unanswered samples than this count as many."""

ENDS = {
    "answer missing": "did not answer a message",
    "pong missing": "did not answer a ping",
    "answer unreadable": "answered with something that is not a message",
    "closed in order": "closed the connection",
    "frame unreadable": "a frame that is not a remote call",
}
"""The marks for ends of links, each with the words in the error that it stands for."""


def keys_of(message: em.EngineMessage) -> tuple[Key, ...]:
    """Return the keys of the events or samples in a message; a state message has none.

    An error log may have several, since error logs that wait become one.
    """
    match message:
        case em.RunStartedMsg() | em.RunStoppedMsg():
            return ((type(message).__name__, message.run_id),)
        case em.WebPushNotificationMsg():
            return (("notification", str(message.notification.body)),)
        case em.ErrorLogMsg():
            texts = (entry.message for entry in message.log.entries)
            return tuple(("errors", text) for text in texts if not left_out_by(text))
        case em.TagsUpdatedMsg():
            return ((SAMPLE, str(message.tags[0].value)),)
    return ()


def keys_of_body(kind: str, body: str) -> tuple[Key, ...]:
    """Return the keys of an encoded message like `keys_of`, without decoding all of it."""
    if kind == "TagsUpdatedMsg":
        return ((SAMPLE, str(json.loads(body)["tags"][0]["value"])),)
    if kind in RUN_EVENTS:
        return ((kind, json.loads(body)["run_id"]),)
    if kind == "WebPushNotificationMsg":
        return (("notification", json.loads(body)["notification"]["body"]),)
    if kind == "ErrorLogMsg":
        texts = (entry["message"] for entry in json.loads(body)["log"]["entries"])
        return tuple(("errors", text) for text in texts if not left_out_by(text))
    return ()


def left_out_by(text: str) -> int:
    """Return how many entries of an error log an entry stands for, 0 if it is an ordinary one."""
    match = re.fullmatch(LEFT_OUT.format(r"(\d+)"), text)
    return int(match[1]) if match else 0


def is_notice(key: Key) -> bool:
    """Tell whether this is a notification or an entry of the error log."""
    return key[0] in ("notification", "errors")


@define(eq=False)
class Sent:
    """A message on a link, until it is answered."""

    keys: tuple[Key, ...]
    kind: str
    body: str
    repeats: bool
    """Whether it repeats the beginning of the open run on a new link."""
    was_sent: bool
    """Whether it, or a state of its kind, was sent before."""
    is_suspect: bool = field(default=False, init=False)
    """Whether it may be to blame for what happened when it was sent before, and so goes alone."""
    is_retried: bool = field(default=False, init=False)
    """Whether it is a notice that has failed."""
    at: float = field(factory=trio.current_time, init=False)

    @property
    def is_notice(self) -> bool:
        """Whether samples may pass it."""
        return bool(self.keys) and is_notice(self.keys[0])

    @property
    def is_run_event(self) -> bool:
        """Whether it is a run event, and so a barrier: nothing may be unanswered beside it."""
        return self.kind in RUN_EVENTS


@define(eq=False)
class WatchedLink:
    """The rules for a single link; `expect` is the oracle's."""

    number: int
    expect: Callable[[object, str], None]
    may_lack_method: bool = False
    """Whether Method may come later, since it was tried in vain before."""
    is_open: bool = field(default=True, init=False)
    messages: int = field(default=0, init=False)
    """How many messages were sent on the link."""
    last_number: int = field(default=0, init=False)
    """The number of the last run event or sample that was sent and had not failed before."""
    last_notice: int = field(default=0, init=False)
    """The same for notices."""
    opened_at: float = field(factory=trio.current_time, init=False)
    _untaken_run: Key | None = field(default=None, init=False)
    """The beginning of the open run, if it was repeated and not taken."""
    _failures: dict[str, int] = field(factory=dict, init=False)
    """How often in a row each kind of message outside the line was not taken."""
    told: set[str] = field(factory=set, init=False)
    """The types of state messages that were sent on the link."""
    longest_s: float = field(default=0.0, init=False)
    """The longest time that an answer took (s)."""
    taken: set[str] = field(factory=set, init=False)
    """The types of state messages that were answered with Success."""
    _heard: dict[str, str] = field(factory=dict, init=False)
    """The last state message of each type that was taken."""
    _unanswered: dict[int, Sent] = field(factory=dict, init=False)

    @property
    def unanswered(self) -> list[Sent]:
        """What is unanswered."""
        return list(self._unanswered.values())

    @property
    def only(self) -> Sent | None:
        """The only unanswered message of any kind, or None."""
        return next(iter(self._unanswered.values())) if len(self._unanswered) == 1 else None

    @property
    def bytes_unanswered(self) -> int:
        """The size of all unanswered messages (bytes, not compressed)."""
        return sum(len(sent.body) for sent in self._unanswered.values())

    def is_unanswered(self, key: Key) -> bool:
        """Tell whether a message is unanswered."""
        return any(key in sent.keys for sent in self._unanswered.values())

    def sent_at(self, number: int) -> float | None:
        """Return when an unanswered sample was sent (s), or None for any other message."""
        sent = self._unanswered.get(number)
        return sent.at if sent is not None and sent.kind == "TagsUpdatedMsg" else None

    @property
    def has_sample_unanswered(self) -> bool:
        """Whether a sample is unanswered."""
        return any(sent.kind == "TagsUpdatedMsg" for sent in self._unanswered.values())

    @property
    def has_state_unanswered(self) -> bool:
        """Whether a state message is unanswered."""
        return any(not sent.keys for sent in self._unanswered.values())

    @property
    def is_silent(self) -> bool:
        """Whether an answer is late: a window that is full of unanswered messages lets none go."""
        oldest_at = min((sent.at for sent in self._unanswered.values()), default=math.inf)
        return trio.current_time() - oldest_at > self.longest_s + SILENT_S

    def send(self, number: int, sent: Sent) -> None:
        """Check that a message may go out now, beside those that are unanswered, and note it."""
        self._check_introduction(sent.kind)
        is_run_known = self._untaken_run in (None, *sent.keys)
        self.expect(is_run_known, f"{sent.kind} was sent on a link whose run was not taken")
        self._check_barrier(number, sent)
        if not sent.keys:
            self.expect(
                self._heard.get(sent.kind) != sent.body,
                f"{sent.kind} was sent again, although it is the same",
            )
            self.told.add(sent.kind)
        self._unanswered[number] = sent

    def mark_sample(self, *, others_wait: bool) -> None:
        """Mark how many samples are unanswered when one is sent, and whether a notice is."""
        kinds = [sent.kind for sent in self._unanswered.values()]
        samples = kinds.count("TagsUpdatedMsg")
        sometimes("one at a time", not samples and others_wait)
        sometimes("several at once", 0 < samples <= MANY)
        sometimes("many at once", samples > MANY)
        sometimes("passes a notice", any(s.is_notice for s in self._unanswered.values()))

    def mark_end(self, why: str) -> None:
        """Mark what is unanswered when the link ends, and why it ends."""
        sent = list(self._unanswered.values())
        sometimes("run event cut", any(s.is_run_event and not s.repeats for s in sent))
        sometimes("notice cut", len(sent) == 1 and sent[0].is_notice)
        sometimes("samples cut", sum(s.kind == "TagsUpdatedMsg" for s in sent) > 1)
        sometimes("state cut", self.has_state_unanswered)
        for mark, words in ENDS.items():
            sometimes(mark, words in why)

    def _check_introduction(self, kind: str) -> None:
        if self.messages == 1 and kind == "UodInfoMsg":
            return  # the first was not taken and is sent again
        self.messages += 1
        expected = {1: "UodInfoMsg", 2: "MethodMsg"}.get(self.messages, kind)
        if self.messages == 2 and self.may_lack_method:
            expected = kind
        self.expect(kind == expected, f"{kind} was sent as message {self.messages} of a link")
        self.expect(
            self.messages == 1 or "UodInfoMsg" in self.taken,
            f"{kind} was sent on a link whose UodInfo was not taken",
        )

    def _check_barrier(self, number: int, sent: Sent) -> None:
        waiting = len(self._unanswered)
        self.expect(
            not (sent.is_run_event and waiting),
            f"{sent.kind} {number} overtook {waiting} unanswered messages",
        )
        for other in self._unanswered.values():
            self.expect(
                not other.is_run_event,
                f"{sent.kind} {number} was sent while {other.keys} was unanswered",
            )
            self.expect(
                not (sent.is_retried and other.is_retried),
                f"{sent.kind} {number} was sent beside {other.keys}, although both have failed",
            )
            self.expect(
                not (sent.is_suspect or other.is_suspect),
                f"{sent.kind} {number} was sent beside {other.keys or other.kind}, although one of"
                " them is a suspect",
            )

    def go_on(self) -> None:
        """Note that the beginning of the open run is given up."""
        self._untaken_run = None

    def answer(self, number: int, *, is_taken: bool) -> Sent | None:
        """Note the answer to a message; return the message, or None if it was not unanswered."""
        sent = self._unanswered.pop(number, None)
        self.expect(sent is not None, f"message {number} was answered twice")
        if sent is None:
            return None
        self.longest_s = max(self.longest_s, trio.current_time() - sent.at)
        if sent.repeats:
            self._untaken_run = None if is_taken else sent.keys[0]
        if sent.repeats or not sent.keys:
            self._failures[sent.kind] = 0 if is_taken else self._failures.get(sent.kind, 0) + 1
        if not sent.keys and is_taken:
            self._heard[sent.kind] = sent.body
            self.taken.add(sent.kind)
        return sent

    def check_patience(self, in_vain: Callable[[Key], int], why: str) -> None:
        """Check that the link waited long enough for an answer, given the message's earlier tries.

        `in_vain` returns how often a message was tried in vain, and `why` says why the link ended.
        """
        now = trio.current_time()
        ages = [
            (now - sent.at) / patience(self._tries(sent, in_vain))
            for sent in self._unanswered.values()
        ]
        oldest_s = max(ages, default=0.0)
        self.expect(oldest_s >= CALL_S - ROUNDING_S, f"a link had too little patience: {why}")

    def _tries(self, sent: Sent, in_vain: Callable[[Key], int]) -> int:
        if sent.repeats or not sent.keys:
            return self._failures.get(sent.kind, 0)
        return in_vain(sent.keys[0])

    def check_waiting(self) -> None:
        """Check that the link ends if an answer does not come in time.

        The aggregator answers in order, so a message gets the patience of those sent before it. The
        time for an answer counts from when the last byte left, which over a thin path is much
        later.
        """
        now, due_at, leaving_s = trio.current_time(), 0.0, 0.0
        for sent in self._unanswered.values():
            patience_s = CALL_S * (PATIENCE_MAX if sent.was_sent else 1)
            leaving_s += len(sent.body) / THINNEST_BYTES_S
            due_at = max(due_at, sent.at + leaving_s + patience_s + ROUNDING_S)
            self.expect(now <= due_at, f"a link lived {now - sent.at:.1f} s without an answer")
