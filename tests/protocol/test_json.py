"""The text into which values are written."""

import json
import math
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_runner.protocol._json import dumps

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_written_is_read_back_unchanged(value: object) -> None:
    """Integers of any size, floats to the last bit, and texts of all characters that UTF-8 has."""
    assert json.loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.0, "x"]}, '{"a":[1,2.0,"x"]}'),
        (math.nan, "null"),
        ([math.inf, -math.inf], "[null,null]"),
        (2**64, "18446744073709551616"),
        ([2**64, math.nan], "[18446744073709551616,null]"),
        ("a\ud800b", '"a?b"'),
        ({"a\ud800": (math.inf, 1)}, '{"a?":[null,1]}'),
        ("grün \u2028", '"grün \u2028"'),
        ("\x00\x1f", '"\\u0000\\u001f"'),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (1e-7, "1e-7"),
        (5e-324, "5e-324"),
    ],
)
def test_the_spelling_is_always_the_same(value: object, text: str) -> None:
    """A body is compared with the one before and is kept in outboxes, so its text is a promise."""
    assert dumps(value) == text


@dataclass
class Point:
    """No JSON value, though orjson would write one."""

    x: int


@pytest.mark.parametrize(
    "value", [Decimal(1), b"x", date(2026, 1, 1), Point(1), object(), {"a": {3}}]
)
def test_a_value_that_json_does_not_have_is_refused(value: object) -> None:
    """An engine that gives such a value gets an error."""
    with pytest.raises(TypeError):
        dumps(value)
