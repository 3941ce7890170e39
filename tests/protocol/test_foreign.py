"""Messages of another implementation go out as they came."""

import json
from typing import Any

import pytest
from attrs import evolve

from trio_runner import MemoryOutbox
from trio_runner.protocol import encode, encode_body, foreign, kind_of
from trio_runner.protocol import engine_messages as em

OBJ: dict[str, Any] = {
    "version": 1,
    "sequence_number": -1,
    "engine_id": "",
    "tags": [{"name": "T", "value": [1, 2], "quality": {"good": True}}],
    "run_id": None,
    "sampled_by": "a newer version",
    "_type": "TagsUpdatedWithQualityMsg",
    "_ns": "openpectus.protocol.engine_messages_2",
}


def test_a_foreign_message_encodes_to_what_it_was_made_from() -> None:
    """Unknown fields, values and classes are kept in their order."""
    message = foreign(OBJ, em.TagsUpdatedMsg)
    assert json.dumps(encode(message)) == json.dumps(OBJ)
    assert isinstance(message, em.TagsUpdatedMsg)
    assert kind_of(message) is em.TagsUpdatedMsg


def test_a_changed_field_goes_out_changed() -> None:
    """The run id with which a sample is stamped is sent, and nothing else changes."""
    message = evolve(foreign(OBJ, em.TagsUpdatedMsg), run_id="R")
    assert encode(message) == {**OBJ, "run_id": "R"}


def test_a_foreign_body_goes_out_unchanged() -> None:
    """Not even a blank changes, unless a field was changed."""
    body = '{ "run_id":null, "a":1}'
    message = foreign({"run_id": None, "tags": ()}, em.TagsUpdatedMsg, body=body)
    assert encode_body(message) == body
    assert encode(message) == {"run_id": None, "a": 1}
    assert encode_body(evolve(message, run_id="R")) == '{"run_id":"R","a":1}'


def test_a_foreign_message_waits_in_the_outbox_as_its_kind() -> None:
    """A foreign sample is a sample, and its body has everything that it came with."""
    outbox = MemoryOutbox()
    outbox.put(foreign(OBJ, em.TagsUpdatedMsg))
    entry = outbox.take()
    assert entry.kind is em.TagsUpdatedMsg
    sent = json.loads(entry.text)
    assert sent == {k: v for k, v in OBJ.items() if k not in ("engine_id", "sequence_number")}


def test_a_foreign_message_that_no_runner_sends_is_refused() -> None:
    """The error names the kind that it stands for."""
    with pytest.raises(TypeError, match="PingMsg is not a message that a runner sends"):
        MemoryOutbox().put(foreign(OBJ, em.PingMsg))


def test_the_end_of_a_run_after_a_crash_keeps_what_is_unknown() -> None:
    """The run log and method state that waited are in RunStopped as another version made them."""
    log = {"lines": [{"id": 1, "mood": "new"}]}
    state = {"started_line_ids": [], "skipped_line_ids": ["3"]}
    common = {"version": 0, "_ns": "x"}
    outbox = MemoryOutbox()
    outbox.put(em.RunStartedMsg(run_id="R", started_tick=1.0))
    outbox.put(foreign({**common, "_type": "A", "run_id": "R", "runlog": log}, em.RunLogMsg))
    outbox.put(foreign({**common, "_type": "B", "method_state": state}, em.MethodStateMsg))
    outbox.close_run()
    outbox.take()
    stopped = json.loads(outbox.take().text)
    assert stopped["_type"] == "RunStoppedMsg"
    assert (stopped["run_id"], stopped["runlog"], stopped["method_state"]) == ("R", log, state)
    assert stopped["archive"] is None


def test_a_known_message_is_its_own_kind() -> None:
    """What this project makes is encoded as always."""
    message = em.RunStartedMsg(run_id="R", started_tick=1.0)
    assert kind_of(message) is em.RunStartedMsg
    assert json.loads(encode_body(message))["_type"] == "RunStartedMsg"
