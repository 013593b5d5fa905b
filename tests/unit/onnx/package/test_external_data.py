"""The walk over a graph's bytes finds every file a graph names, wherever the tensor stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from phi4.onnx.build.network.graph import GraphWriter
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.package.external_data import external_files, packed_offsets


def external(location: str | None = "secret", offset: str = "8", length: str = "4") -> TensorProto:
    tensor = TensorProto(name="t", data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def in_attribute(**fields: object) -> ModelProto:
    node = NodeProto(op_type="If", attribute=[AttributeProto(name="a", **fields)])
    return ModelProto(graph=GraphProto(node=[node]))


def sparse_in(graph: GraphProto) -> GraphProto:
    graph.sparse_initializer.add().indices.CopyFrom(external())
    return graph


HIDING_PLACES = {
    "initializer": ModelProto(graph=GraphProto(initializer=[external()])),
    "sparse initializer": ModelProto(graph=sparse_in(GraphProto())),
    "attribute": in_attribute(t=external()),
    "attributes": in_attribute(tensors=[external()]),
    "branch": in_attribute(g=GraphProto(initializer=[external()])),
    "branches": in_attribute(graphs=[GraphProto(initializer=[external()])]),
    "function": ModelProto(
        functions=[
            FunctionProto(
                node=[NodeProto(attribute=[AttributeProto(name="a", t=external())])],
            )
        ]
    ),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_tensor_is_found_wherever_a_graph_can_hold_one(place: str) -> None:
    assert external_files(HIDING_PLACES[place].SerializeToString()) == {"secret": 12}


def test_graph_without_external_tensors_names_no_file() -> None:
    inline = TensorProto(name="t", dims=[2], data_type=1, raw_data=b"\x6a\x03abcdef")
    assert external_files(ModelProto(graph=GraphProto(initializer=[inline])).SerializeToString()) == {}


def test_graph_of_the_builder_names_its_own_file_up_to_its_last_byte(tmp_path: Path) -> None:
    with WeightSink(tmp_path / "g.onnx.data") as sink:
        g = GraphWriter("g", sink)
        x = g.input("x", np.float32, ("n", 600))
        g.output("y", g.op("Add", x, g.weight("w", np.ones(600, np.float32))), np.float32, ("n", 600))
        model = ir.to_proto(g.model()).SerializeToString()
    assert external_files(model) == {"g.onnx.data": (tmp_path / "g.onnx.data").stat().st_size}


def test_digest_of_the_data_may_be_stated() -> None:
    model = ModelProto(graph=GraphProto(initializer=[with_key("checksum")]))
    assert external_files(model.SerializeToString()) == {"secret": 12}


def test_every_file_is_named_once_with_its_furthest_byte() -> None:
    tensors = [external("a", "0", "4"), external("b"), external("a", "100", "50"), external("a", "7", "1")]
    assert external_files(ModelProto(graph=GraphProto(initializer=tensors)).SerializeToString()) == {
        "a": 150,
        "b": 12,
    }


def twice() -> TensorProto:
    tensor = external()
    tensor.external_data.add(key="location", value="other")
    return tensor


def with_key(key: str) -> TensorProto:
    tensor = external()
    tensor.external_data.add(key=key, value="1")
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (external(None), "does not say where"),
        (external(offset="-5"), "no place"),
        (external(length="many"), "no place"),
        (twice(), "twice"),
        (with_key("basepath"), "known are location, offset, length, checksum"),
        (with_key("prepacked_0"), "states 'prepacked_0' of its data"),
    ],
)
def test_entries_that_make_no_sense_are_refused(tensor: TensorProto, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        external_files(ModelProto(graph=GraphProto(initializer=[tensor])).SerializeToString())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x3a\xff\x01", "longer than its message"),
        (b"\x3a", "cut off"),
        (b"\x3b", "wire type 3"),
        (b"\x09\x01", "cut off"),
        (b"\xff" * 11, "cut off"),
        (b"\xba\x80\x80\x80\x80\x01\x00", "impossible number"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        external_files(data)


def field(number: int, data: bytes) -> bytes:
    length = bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + length + data


def test_nesting_without_end_is_refused() -> None:
    graph = b""
    for _ in range(60):
        graph = field(1, field(5, field(6, graph)))  # a node's attribute that is a graph
    with pytest.raises(ValueError, match="too deep"):
        external_files(field(7, graph))


def packed(value: str) -> TensorProto:
    tensor = external()
    tensor.external_data.add(key="prepacked_0", value=value)
    return tensor


def test_places_of_arranged_weights_are_read_from_graphs_of_the_runtime_and_refused_in_packages() -> None:
    tensors = [external(), packed("MatMulNBits+779|4096;512;0"), packed("MatMul+1|64;8;0;100;9;0")]
    data = ModelProto(graph=GraphProto(initializer=tensors)).SerializeToString()
    assert packed_offsets(data) == [4096, 64, 100]
    with pytest.raises(ValueError, match="states 'prepacked_0' of its data"):
        external_files(data)


def test_place_of_arranged_weights_that_is_no_number_is_refused() -> None:
    data = ModelProto(graph=GraphProto(initializer=[packed("MatMul+1|x;8;0")])).SerializeToString()
    with pytest.raises(ValueError, match="'x' is no place in a file"):
        packed_offsets(data)
