import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.recorded import EXAMPLES, FRAMES, MESSAGES
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    DecodeError,
    Request,
    Response,
    decode,
    decode_frame,
    decode_json,
    encode,
    encode_body,
    encode_dispatch,
    encode_request,
    encode_response,
)
from trio_runner.protocol import engine_messages as em

properties = settings(derandomize=True, database=None, deadline=None, max_examples=40)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


def _encode(frame: Request | Response) -> str:
    return encode_request(frame) if isinstance(frame, Request) else encode_response(frame)


@pytest.mark.parametrize("name", MESSAGES["rpc"])
def test_an_example_decodes_and_encodes_back_equal(name: str) -> None:
    """Every envelope of the examples comes out as it went in."""
    example = MESSAGES["rpc"][name]
    frame = decode_frame(json.dumps(example))
    assert type(frame) is (Response if example["request"] is None else Request)
    assert json.loads(_encode(frame)) == example


def test_every_frame_of_the_conversation_decodes_and_encodes_back_equal() -> None:
    """All 232 text frames come out as they went in, from text and from bytes."""
    assert len(FRAMES) == 232
    for recorded in FRAMES:
        text = json.dumps(recorded)
        assert json.loads(_encode(decode_frame(text))) == recorded
        assert decode_frame(text.encode()) == decode_frame(text)


def test_the_answer_to_a_dispatch_is_a_string_that_holds_a_message() -> None:
    """The result is JSON within JSON."""
    frame = decode_frame(json.dumps(MESSAGES["rpc"]["reply_of_dispatch"]))
    assert isinstance(frame, Response)
    assert isinstance(frame.result, str)
    assert encode(decode_json(frame.result)) == EXAMPLES["common.SuccessMessage"]


def test_the_methods_of_the_conversation_are_the_known_ones() -> None:
    """Both sides call these three methods and no other."""
    methods = {frame["request"]["method"] for frame in FRAMES if frame["request"]}
    assert methods == {PING, GET_ENGINE_ID, DISPATCH}


@given(st.text(), st.dictionaries(st.text(), JSON), st.text())
@properties
def test_a_request_survives_the_round_trip(
    method: str, arguments: dict[str, object], call_id: str
) -> None:
    """Any call comes back as it was."""
    request = Request(method=method, arguments=arguments, call_id=call_id)
    assert decode_frame(encode_request(request)) == request


@given(JSON, st.none() | st.text(), st.text())
@properties
def test_a_response_survives_the_round_trip(
    result: object, result_type: str | None, call_id: str
) -> None:
    """Any answer comes back as it was."""
    response = Response(result=result, result_type=result_type, call_id=call_id)
    assert decode_frame(encode_response(response)) == response


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in EXAMPLES
        if name.startswith("engine.") and name != "engine.RegisterEngineMsg"
    ],
)
def test_a_dispatch_carries_the_message_with_its_engine_and_number(name: str) -> None:
    """Splicing both into an encoded body gives the same as encoding the whole message."""
    message = decode(EXAMPLES[name])
    assert isinstance(message, em.EngineMessage)
    frame = decode_frame(encode_dispatch("c0ffee", "host_Unit%20A", 42, encode_body(message)))
    assert frame == Request(
        method=DISPATCH, arguments={"message_json": EXAMPLES[name]}, call_id="c0ffee"
    )


@given(st.text(), st.text(), st.integers())
@properties
def test_a_dispatch_escapes_what_it_splices_in(
    call_id: str, engine_id: str, sequence_number: int
) -> None:
    """Quotes and line feeds in an id do not break the frame."""
    frame = decode_frame(
        encode_dispatch(call_id, engine_id, sequence_number, encode_body(em.PingMsg()))
    )
    assert isinstance(frame, Request)
    assert frame.call_id == call_id
    assert decode(frame.arguments["message_json"]) == em.PingMsg(
        engine_id=engine_id, sequence_number=sequence_number
    )


@pytest.mark.parametrize("body", ["", "{}", "null", "[1]"])
def test_a_dispatch_takes_no_body_that_is_no_message(body: str) -> None:
    """What cannot be spliced is refused instead of sent."""
    with pytest.raises(ValueError, match="expected the text of a JSON object"):
        encode_dispatch("c0ffee", "e", 1, body)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "$: expected an object, found an array"),
        ("{}", "$: expected a request or a response, found neither"),
        ('{"request":null}', "$: expected a request or a response, found neither"),
        (
            '{"request":null,"response":null}',
            "$: expected a request or a response, found neither",
        ),
        ('{"request":{},"response":{}}', "$: expected a request or a response, found both"),
        ('{"request":7,"response":null}', "$.request: expected an object, found 7"),
        (
            '{"request":{"arguments":{},"call_id":"1"},"response":null}',
            "$.request.method: expected a string, found nothing",
        ),
        (
            '{"request":{"method":"m","arguments":[],"call_id":"1"},"response":null}',
            "$.request.arguments: expected an object, found an array",
        ),
        (
            '{"request":{"method":"m","arguments":{},"call_id":2},"response":null}',
            "$.request.call_id: expected a string, found 2",
        ),
        (
            '{"response":{"call_id":"' + 201 * "1" + '"}}',
            "$.response.call_id: expected 200 characters at most, found 201",
        ),
        (
            '{"request":null,"response":{"result":1,"result_type":2,"call_id":"1"}}',
            "$.response.result_type: expected a string, found 2",
        ),
        (
            '{"request":null,"response":{"result":1,"result_type":null,"call_id":1}}',
            "$.response.call_id: expected a string, found 1",
        ),
    ],
)
def test_a_frame_that_is_no_envelope_is_refused_with_the_path(text: str, expected: str) -> None:
    """A frame must contain one call or one answer, of the right types."""
    with pytest.raises(DecodeError) as caught:
        decode_frame(text)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"request":{"method":"m"}}', Request("m", {}, None)),
        ('{"request":{"method":"m","arguments":null,"call_id":null}}', Request("m", {}, None)),
        ('{"request":{"method":"m","call_id":"1"}}', Request("m", {}, "1")),
        ('{"response":{"result":"r","call_id":"1"}}', Response("r", None, "1")),
        ('{"response":{"result_type":"str","call_id":"1"}}', Response(None, "str", "1")),
        ('{"response":{"result":"r","result_type":"str"}}', Response("r", "str", None)),
    ],
)
def test_keys_that_are_null_may_be_left_out(text: str, expected: Request | Response) -> None:
    """A peer may leave out keys of the envelope that are null."""
    assert decode_frame(text) == expected


def test_a_frame_nested_without_end_is_refused() -> None:
    """Deep nesting is an error of the peer, not the end of the reader."""
    text = '{"request":null,"response":' + '{"result":' * 100_000
    with pytest.raises(DecodeError, match="nested too deeply"):
        decode_frame(text)


@pytest.mark.parametrize(("depth", "is_read"), [(100, True), (101, False)])
def test_nesting_has_a_bound(depth: int, is_read: bool) -> None:
    """100 levels can be read on every Python; more are refused, even if the levels are wide."""
    for opening, closing in (("[", "]"), ('{"a":0,"b":', "}"), ('[0,"",', "]")):
        inner = opening * (depth - 2) + "0" + closing * (depth - 2)
        text = f'{{"response":{{"result":{inner},"call_id":"1"}}}}'
        if is_read:
            assert isinstance(decode_frame(text), Response)
        else:
            with pytest.raises(DecodeError, match="nested more than 100 deep"):
                decode_frame(text)


def test_a_text_full_of_brackets_is_not_nested() -> None:
    """Only real nesting counts."""
    frame = decode_frame(json.dumps({"response": {"result": ["[" * 1000, [], {}] * 100}}))
    assert isinstance(frame, Response)


def test_unknown_fields_of_a_frame_are_ignored() -> None:
    """A newer peer may add more to the envelope."""
    text = (
        '{"request":{"method":"_ping_","arguments":{},"call_id":"1","new":1},"response":null,"n":2}'
    )
    assert decode_frame(text) == Request(method=PING, arguments={}, call_id="1")


@given(st.text() | st.binary())
@properties
def test_any_text_is_a_frame_or_is_refused(text: str | bytes) -> None:
    """Noise causes nothing but a DecodeError."""
    with pytest.raises(DecodeError):
        decode_frame(text)
