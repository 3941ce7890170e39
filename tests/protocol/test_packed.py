"""Packed bodies, and the compressed frames that are made around them."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_runner.protocol import (
    encode_body,
    encode_dispatch,
    pack,
    splice_dispatch,
    unpack,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

END = b"\x00\x00\xff\xff"


def sample(tags: int) -> str:
    """Return the body of a sample with this many tags."""
    values = [
        mdl.TagValue(name=f"Tag {n}", tick_time=1.7e9 + n, value=n / 7, value_unit="L/h")
        for n in range(tags)
    ]
    return encode_body(em.TagsUpdatedMsg(tags=values))


@given(st.text())
def test_a_packed_body_comes_back(text: str) -> None:
    body = f'{{"{text}":0}}'.encode(errors="replace").decode()
    assert unpack(pack(body)) == body


@given(st.lists(st.text(max_size=50).map(lambda text: text.encode(errors="replace").decode())))
def test_spliced_frames_are_what_a_link_without_compression_would_send(texts: list[str]) -> None:
    """A receiver that lets each message build on those before it can read them too."""
    inflate = zlib.decompressobj(-15)
    for number, text in enumerate(texts):
        body = f'{{"text":"{text}","version":0}}'
        frame = splice_dispatch("c0ffee", "host_Unit%20A", number, pack(body))
        expected = encode_dispatch("c0ffee", "host_Unit%20A", number, body)
        assert inflate.decompress(frame + END).decode() == expected
        assert inflate.unused_data == b""


@pytest.mark.parametrize("tags", [0, 1, 20, 3000])
def test_a_frame_is_its_packed_body_plus_200_bytes(tags: int) -> None:
    """A body of any size is used as it is; over 64 kB it already consists of several blocks."""
    body = sample(tags)
    packed = pack(body)
    frame = splice_dispatch("0" * 32, "host_Unit", 7, packed)
    assert packed[9:-6] in frame
    assert len(frame) - len(packed) < 200
    assert zlib.decompressobj(-15).decompress(frame + END).decode() == encode_dispatch(
        "0" * 32, "host_Unit", 7, body
    )


def test_an_engine_id_of_any_length_is_sent() -> None:
    """The aggregator gives it; over 64 kB it takes several blocks."""
    body = sample(1)
    for engine_id in ("e" * 70_000, "ü" * 40_000, "e" * 200_000):
        frame = splice_dispatch("0" * 32, engine_id, 7, pack(body))
        assert zlib.decompressobj(-15).decompress(frame + END).decode() == encode_dispatch(
            "0" * 32, engine_id, 7, body
        )


def test_a_body_that_an_earlier_version_has_compressed_is_sent_too() -> None:
    """Version 0.1 compressed bodies in one piece."""
    body = sample(20)
    old = zlib.compress(body.encode(), 1)
    assert unpack(old) == body
    frame = splice_dispatch("0" * 32, "host_Unit", 7, old)
    assert zlib.decompressobj(-15).decompress(frame + END).decode() == encode_dispatch(
        "0" * 32, "host_Unit", 7, body
    )


def test_a_changed_byte_is_noticed() -> None:
    """A packed body holds a checksum."""
    packed = bytearray(pack(sample(20)))
    packed[-1] ^= 1
    with pytest.raises(zlib.error):
        unpack(bytes(packed))


@pytest.mark.parametrize("text", ["", "[]", "{}", '"text"', "null"])
def test_a_body_that_is_no_object_with_a_field_is_not_packed(text: str) -> None:
    with pytest.raises(ValueError, match="expected the text of a JSON object"):
        pack(text)
