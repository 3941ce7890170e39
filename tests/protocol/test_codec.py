import copy
import json
import math
from enum import StrEnum
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.recorded import CONVERSATION, EXAMPLES, FRAMES, MESSAGES
from tests.protocol.instances import CLASSES, MESSAGE_CLASSES, instances, name_of
from trio_runner._errors import TrioRunnerError
from trio_runner.protocol import (
    DecodeError,
    MessageBase,
    SuccessMessage,
    decode,
    decode_json,
    encode,
    encode_body,
    encode_json,
    make_converter,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol._json import dumps

# Derandomized: the same examples in every run. To build a unit's description slowly is no fault.
properties = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

CONVERTER = make_converter()
MODEL_CLASSES = [cls for cls in CLASSES if cls not in MESSAGE_CLASSES]

TAGS = "engine.TagsUpdatedMsg"
UOD = "engine.UodInfoMsg"
DIRECTIONS = '"input", "output", "na", "unspecified"'
PUSH = "engine.WebPushNotificationMsg"
RUN_LOG = "engine.RunLogMsg"


def _refusal(example: str, *path: Any, to: Any) -> DecodeError:
    """Return the error for the example with the value at the path set to another."""
    obj = place = copy.deepcopy(EXAMPLES[example])
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    with pytest.raises(DecodeError) as caught:
        decode(obj)
    return caught.value


def _plain(value: Any) -> Any:
    """Return what the wire has for the value, worked out without cattrs."""
    if attrs.has(type(value)):
        return {a.name: _plain(getattr(value, a.name)) for a in attrs.fields(type(value))}
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_decodes_and_encodes_back_equal(name: str) -> None:
    """Every message that Open Pectus serialised comes out as it went in, as JSON text too."""
    example = EXAMPLES[name]
    message = decode(example)
    assert type(message).__name__ == example["_type"]
    assert message.__class__.__module__.rpartition(".")[2] == example["_ns"].rpartition(".")[2]
    assert list(encode(message).items()) == list(example.items())
    # `repr` tells 11 from 11.0, and Python's comparison does not.
    assert repr(json.loads(encode_json(message))) == repr(example)


def test_every_message_of_the_conversation_decodes_and_encodes_back_equal() -> None:
    """Registration bodies, dispatched messages and the messages inside answers come out equal."""
    recorded = [row["body"] for row in CONVERSATION if "body" in row]
    for frame in FRAMES:
        if frame["request"] is not None:
            recorded += frame["request"]["arguments"].values()
        elif frame["response"]["result"].startswith("{"):
            recorded.append(json.loads(frame["response"]["result"]))
    assert len(recorded) == 228
    for obj in recorded:
        assert encode(decode(obj)) == obj


def test_the_two_method_messages_are_told_apart() -> None:
    """The class follows from `_ns` and `_type` together."""
    assert type(decode(EXAMPLES["engine.MethodMsg"])) is em.MethodMsg
    assert type(decode(EXAMPLES["aggregator.MethodMsg"])) is am.MethodMsg


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=name_of)
@given(data=st.data())
@properties
def test_a_message_survives_the_round_trip(cls: Any, data: st.DataObject) -> None:
    """What is decoded equals what was encoded, and its text tells int from float as before."""
    message = data.draw(instances(cls))
    text = encode_json(message)
    assert decode_json(text) == message
    assert decode(encode(message)) == message
    assert encode_json(decode_json(text.encode())) == text


@pytest.mark.parametrize("cls", MODEL_CLASSES, ids=name_of)
@given(data=st.data())
@properties
def test_a_model_survives_the_round_trip_through_a_converter(cls: Any, data: st.DataObject) -> None:
    """Models, which are no messages, go through a converter that `make_converter` made."""
    model = data.draw(instances(cls))
    assert CONVERTER.structure(json.loads(json.dumps(CONVERTER.unstructure(model))), cls) == model


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=name_of)
@given(data=st.data())
@properties
def test_numbers_that_are_not_finite_become_null_everywhere(cls: Any, data: st.DataObject) -> None:
    """NaN and infinity become null at any depth, and nothing else changes."""
    message = data.draw(instances(cls, finite=False))
    obj = encode(message)
    del obj["_type"], obj["_ns"]
    assert obj == _plain(message)
    assert json.loads(encode_json(message), parse_constant=pytest.fail)["version"] == obj["version"]


def test_a_value_that_is_not_finite_comes_back_as_none() -> None:
    """Where None is allowed, null decodes to it."""
    for value in (math.nan, math.inf, -math.inf):
        tag = mdl.TagValue(name="FT01", tick_time=1.0, value=value, value_unit=None)
        back = decode(encode(em.TagsUpdatedMsg(tags=[tag])))
        assert back == em.TagsUpdatedMsg(tags=[attrs.evolve(tag, value=None)])


def test_an_instant_that_is_not_finite_is_refused_on_decoding() -> None:
    """Where None is not allowed, the null that infinity became is an error."""
    message = em.RunStartedMsg(run_id="r", started_tick=math.inf)
    assert encode(message)["started_tick"] is None
    with pytest.raises(DecodeError, match=r"^\$\.started_tick: expected a number, found null$"):
        decode(encode(message))


def test_an_integer_is_accepted_as_a_float_and_stays_an_integer() -> None:
    """JSON's 1 is accepted in a float field, and goes out as 1."""
    obj = EXAMPLES["engine.RunStartedMsg"] | {"started_tick": 1700000000}
    message = decode(obj)
    assert isinstance(message, em.RunStartedMsg)
    assert type(message.started_tick) is int
    assert '"started_tick":1700000000,' in encode_json(message)


@pytest.mark.parametrize(
    ("example", "path", "to", "expected"),
    [
        (
            TAGS,
            ("tags", 0, "tick_time"),
            None,
            "$.tags[0].tick_time: expected a number, found null",
        ),
        (
            TAGS,
            ("tags", 0, "tick_time"),
            True,
            "$.tags[0].tick_time: expected a number, found true",
        ),
        (TAGS, ("tags", 1, "tick_time"), "1", "$.tags[1].tick_time: expected a number, found '1'"),
        (
            TAGS,
            ("tags", 2, "value"),
            False,
            "$.tags[2].value: expected a number or a string or null, found false",
        ),
        (
            TAGS,
            ("tags", 0, "direction"),
            "up",
            f"$.tags[0].direction: expected one of {DIRECTIONS}, found 'up'",
        ),
        (
            TAGS,
            ("tags", 0, "direction"),
            1,
            f"$.tags[0].direction: expected one of {DIRECTIONS}, found 1",
        ),
        (
            TAGS,
            ("tags", 0, "simulated"),
            0,
            "$.tags[0].simulated: expected true or false or null, found 0",
        ),
        (TAGS, ("tags", 0), [], "$.tags[0]: expected an object, found an array"),
        (TAGS, ("tags",), "abc", "$.tags: expected an array, found 'abc'"),
        (TAGS, ("tags",), {}, "$.tags: expected an array, found an object"),
        (TAGS, ("run_id",), 7, "$.run_id: expected a string or null, found 7"),
        (TAGS, ("sequence_number",), 1.0, "$.sequence_number: expected an integer, found 1.0"),
        (TAGS, ("sequence_number",), True, "$.sequence_number: expected an integer, found true"),
        (TAGS, ("engine_id",), None, "$.engine_id: expected a string, found null"),
        (
            RUN_LOG,
            ("runlog", "lines", 0, "start_values", 0, "value"),
            [],
            (
                "$.runlog.lines[0].start_values[0].value: "
                "expected a number or a string or null, found an array"
            ),
        ),
        (
            UOD,
            ("readings", 0, "command_options", "Reset it"),
            1,
            '$.readings[0].command_options["Reset it"]: expected a string, found 1',
        ),
        (
            UOD,
            ("readings", 1, "entry_data_type"),
            1,
            '$.readings[1].entry_data_type: expected "str" or "int" or "float" or "auto", found 1',
        ),
        (UOD, ("required_roles",), "admin", "$.required_roles: expected an array, found 'admin'"),
        (UOD, ("required_roles",), ["a", 1], "$.required_roles[1]: expected a string, found 1"),
        (
            UOD,
            ("plot_configuration", "sub_plots", 0, "ratio"),
            False,
            "$.plot_configuration.sub_plots[0].ratio: expected a number, found false",
        ),
        (
            PUSH,
            ("notification", "actions", 0, "action"),
            "go",
            "$.notification.actions[0].action: expected \"navigate\", found 'go'",
        ),
        (
            PUSH,
            ("notification", "vibrate", 1),
            0.5,
            "$.notification.vibrate[1]: expected an integer, found 0.5",
        ),
        (
            "aggregator.RegisterEngineReplyMsg",
            ("success",),
            "no",
            "$.success: expected true or false, found 'no'",
        ),
        (
            "aggregator.InjectCodeMsg",
            ("pcode",),
            "Mark: \ud800",
            r"$.pcode: expected a string, found 'Mark: \ud800'",
        ),
        (
            "engine.RunStartedMsg",
            ("started_tick",),
            math.inf,
            "$.started_tick: expected a number, found inf",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(
    example: str, path: tuple[Any, ...], to: Any, expected: str
) -> None:
    """Nothing is converted; the error tells where, what was expected and what was found."""
    error = _refusal(example, *path, to=to)
    assert str(error) == expected
    assert error.path == expected.partition(":")[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_missing_field_is_refused_unless_it_has_a_default(name: str) -> None:
    """Each field in turn is left out: an error names a required one, others get their defaults."""
    example = EXAMPLES[name]
    cls = type(decode(example))
    for attribute in attrs.fields(cls):
        obj = {key: value for key, value in example.items() if key != attribute.name}
        if attribute.default is attrs.NOTHING:
            with pytest.raises(DecodeError, match=r"found nothing$") as caught:
                decode(obj)
            assert caught.value.path == f"$.{attribute.name}"
        else:
            assert type(decode(obj)) is cls


def test_a_missing_field_of_a_nested_object_is_refused_with_its_path() -> None:
    """The path leads to where the field should have been."""
    obj = copy.deepcopy(EXAMPLES[TAGS])
    del obj["tags"][3]["tick_time"]
    with pytest.raises(DecodeError) as caught:
        decode(obj)
    assert str(caught.value) == "$.tags[3].tick_time: expected a number, found nothing"


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    """A newer aggregator may send more than is known here."""
    obj = copy.deepcopy(EXAMPLES["aggregator.MethodMsg"])
    expected = decode(obj)
    obj["new"] = {"a": [1]}
    obj["method"]["new"] = None
    obj["method"]["lines"][0]["new"] = "x"
    assert decode(obj) == expected


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (None, "$: expected an object, found null"),
        ([], "$: expected an object, found an array"),
        ({"_type": "PingMsg"}, "$._ns: expected a string, found nothing"),
        ({"_ns": "openpectus.protocol.messages"}, "$._type: expected a string, found nothing"),
        ({"_ns": [], "_type": "PingMsg"}, "$._ns: expected a string, found an array"),
        (
            {"_ns": "openpectus.protocol.models", "_type": "Method"},
            "$._ns: expected a namespace of messages, found 'openpectus.protocol.models'",
        ),
        (
            {"_ns": "openpectus.protocol.messages", "_type": "PingMsg"},
            "$._type: expected a message of openpectus.protocol.messages, found 'PingMsg'",
        ),
    ],
)
def test_an_object_that_is_no_message_is_refused(obj: object, expected: str) -> None:
    """An object is a message only if its `_ns` and `_type` name a class of messages."""
    with pytest.raises(DecodeError) as caught:
        decode(obj)
    assert str(caught.value) == expected


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_literals_that_json_does_not_have_are_refused(literal: str) -> None:
    """NaN and Infinity are refused even in a field that would be ignored."""
    text = encode_json(SuccessMessage()).replace("{", f'{{"new":{literal},', 1)
    with pytest.raises(DecodeError, match=rf"^\$: expected JSON, .*\({literal} is not JSON\)"):
        decode_json(text)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    """1e999 is JSON, and becomes infinity when it is read."""
    text = encode_json(em.RunStartedMsg(run_id="r", started_tick=1.5)).replace("1.5", "1e999")
    with pytest.raises(DecodeError, match=r"^\$\.started_tick: expected a number, found inf"):
        decode_json(text)


@pytest.mark.parametrize("text", ["", "{", b"\xff{}", "[" * 100_000, "9" * 5000, "\ufeff{}"])
def test_a_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    """Broken text, other encodings and endless nesting give the one error, kept short."""
    with pytest.raises(DecodeError, match=r"^\$: expected JSON, found ") as caught:
        decode_json(text)
    assert len(str(caught.value)) < 250


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(sorted(EXAMPLES)),
    st.data(),
)
@settings(properties, max_examples=80)
def test_a_message_with_any_one_field_changed_decodes_or_is_refused(
    value: object, name: str, data: st.DataObject
) -> None:
    """Whatever JSON a field contains, the outcome is a message or a DecodeError with its path."""
    field = data.draw(st.sampled_from(sorted(EXAMPLES[name])))
    try:
        outcome: object = decode(EXAMPLES[name] | {field: value})
    except DecodeError as error:
        outcome = error.path
    assert isinstance(outcome, MessageBase) or str(outcome).startswith(f"$.{field}")


def test_a_lone_surrogate_is_sent_as_a_question_mark() -> None:
    """Text that UTF-8 cannot carry does not end the runner."""
    text = encode_json(am.InjectCodeMsg(pcode="Mark: å \ud800"))
    assert text.encode()
    assert decode_json(text) == am.InjectCodeMsg(pcode="Mark: å ?")


def test_text_is_compact_and_not_escaped() -> None:
    """The outbox is bounded in bytes, so none are spent on blanks and escapes."""
    assert encode_json(am.InjectCodeMsg(pcode="Å ∞")) == (
        '{"version":0,"pcode":"Å ∞","_type":"InjectCodeMsg",'
        '"_ns":"openpectus.protocol.aggregator_messages"}'
    )


def test_a_body_has_neither_engine_id_nor_sequence_number() -> None:
    """These two are known only when the message is sent."""
    message = em.RunStartedMsg(run_id="r", started_tick=1.5, engine_id="e", sequence_number=3)
    assert encode_body(message) == (
        '{"version":0,"run_id":"r","started_tick":1.5,"_type":"RunStartedMsg",'
        '"_ns":"openpectus.protocol.engine_messages"}'
    )


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=name_of)
@given(data=st.data())
def test_a_body_is_the_text_of_what_a_message_encodes_to(cls: Any, data: st.DataObject) -> None:
    """This includes numbers that JSON does not have, and texts that belong to an enumeration."""
    message = data.draw(instances(cls, finite=False))
    obj = encode(message)
    for name in ("engine_id", "sequence_number"):
        obj.pop(name, None)
    assert encode_body(message) == dumps(obj)


def test_roles_are_sorted_on_the_wire() -> None:
    """A set has no order of its own, and equal messages must give equal bytes."""
    message = decode(EXAMPLES[UOD] | {"required_roles": ["z", "a", "m"]})
    assert isinstance(message, em.UodInfoMsg)
    assert message.required_roles == frozenset({"a", "m", "z"})
    assert encode(message)["required_roles"] == ["a", "m", "z"]


def test_a_decode_error_is_one_of_the_packages_errors() -> None:
    """Code that catches TrioRunnerError catches it."""
    assert issubclass(DecodeError, TrioRunnerError)


def test_every_class_of_message_has_an_example() -> None:
    """The examples leave out only base classes that are never sent themselves."""
    shown = {(example["_ns"].rpartition(".")[2], example["_type"]) for example in EXAMPLES.values()}
    without = {name_of(cls) for cls in MESSAGE_CLASSES} - {f"{ns}.{name}" for ns, name in shown}
    assert without == {
        "messages.MessageBase",
        "engine_messages.EngineControlMessage",
        "engine_messages.EngineDataMessage",
        "aggregator_messages.AggregatorMessage",
    }
    assert set(MESSAGES) == {
        "openpectus_version", "engine", "aggregator", "common", "rpc", "fields", "enums",
    }  # fmt: skip
