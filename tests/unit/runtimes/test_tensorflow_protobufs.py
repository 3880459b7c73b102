"""Messages as protobuf's own library writes them (given here as it wrote them), and a SavedModel's signatures."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clary.runtimes.frameworks.tensorflow
from clary.runtimes.frameworks.tensorflow import protobufs
from clary.runtimes.frameworks.tensorflow.protobufs import Feature, MalformedMessage, TensorInfo

SAMPLE = Path(clary.runtimes.frameworks.tensorflow.__path__[0]) / "sample" / "model" / "1" / "saved_model.pb"


@pytest.mark.parametrize(
    ("features", "serialized"),
    [
        ({"x": [1.5, -2.0]}, "0a130a110a0178120c120a0a080000c03f000000c0"),
        ({"w": [1, -2, 300]}, "0a180a160a017712111a0f0a0d01feffffffffffffffff01ac02"),
        ({"s": [b"hi", b"\xff"]}, "0a100a0e0a017312090a070a0268690a01ff"),
        ({"e": []}, "0a070a050a01651200"),
    ],
)
def test_examples_are_written_as_protobuf_does(features: dict[str, Feature], serialized: str) -> None:
    assert protobufs.example(features).hex() == serialized


def test_a_session_is_configured_as_protobuf_writes_it() -> None:
    assert protobufs.session_config(3, 200).hex() == "100328c801"


def test_signatures_are_read_from_what_tensorflow_saved() -> None:
    found = protobufs.read_signatures(meta_graph_of(SAMPLE.read_bytes()))
    signature = found["serving_default"]
    assert signature.inputs == {"x": TensorInfo("serving_default_x:0", 1, (-1,))}
    assert list(signature.outputs) == ["y"]
    assert signature.method == "tensorflow/serving/predict"


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        protobufs.read_signatures(data)
    except (MalformedMessage, UnicodeDecodeError):
        return


def meta_graph_of(saved_model: bytes) -> bytes:
    """`SavedModel` has a version and then one graph: number 2, its length, itself."""
    assert saved_model[:3] == b"\x08\x01\x12"
    length = shift = 0
    for place, byte in enumerate(saved_model[3:8]):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return saved_model[4 + place : 4 + place + length]
    raise struct.error("the length does not end")
