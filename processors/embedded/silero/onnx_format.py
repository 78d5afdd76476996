"""Just enough of ONNX's file format to read the weights of one graph and to write another.

An ONNX file is a protobuf message; the numbers below are those of its schema, https://github.com/onnx/onnx
(onnx.proto). The package `onnx` would do it, at 17 MB for what is two pages here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT, INT64 = 1, 7  # TensorProto.DataType
OPSET, IR_VERSION = 13, 8  # what a written graph is in; onnxruntime reads them since 2020

Field = tuple[int, "int | bytes"]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field, in order: an int, or bytes. Raises `ValueError` for what is no such message."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _read_varint(message, at)
        if kind not in (1, 2, 5) or at + size > len(message):
            raise ValueError(f"field {number} of an ONNX message is cut short or of an unknown kind ({kind})")
        yield number, message[at : at + size]
        at += size


def branch_constants(model: bytes, branch: str) -> dict[str, NDArray[Any]]:
    """The constants of one branch of the model's `If`s, by the last part of their names."""
    found: dict[str, NDArray[Any]] = {}
    for node in _nodes(_only(model, 7)):
        for graph in _graphs(node, branch):
            for inner in _nodes(graph):
                if _only(inner, 4) == b"Constant":
                    name = _only(inner, 2).decode().rpartition("__")[2]
                    found[name] = _read_tensor(_only(_only(inner, 5), 5))
    return found


class GraphWriter:
    """A graph, built node by node; every value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []  # NodeProto, in the order of execution
        self._tensors: list[bytes] = []  # TensorProto: the weights

    def constant(self, values: Any, dtype: type = np.int64) -> str:
        """A tensor that never changes: shapes and positions as int64, weights as float32."""
        array = np.ascontiguousarray(values, dtype)
        name = f"constant{len(self._tensors)}"
        kind = INT64 if dtype is np.int64 else FLOAT
        dims = [(1, size) for size in array.shape]
        self._tensors.append(_message(*dims, (2, kind), (8, name.encode()), (9, array.tobytes())))
        return name

    def node(self, operator: str, *inputs: str, to: Sequence[str] = (), **attributes: int | str) -> str:
        """Apply an operator; its first output, named by `to` or made up. Attributes are ints and strings."""
        outputs = to or [f"value{len(self._nodes)}"]
        parts: list[Field] = [(1, name.encode()) for name in inputs]
        parts += [(2, name.encode()) for name in outputs]
        parts.append((4, operator.encode()))
        for name, value in attributes.items():
            typed: tuple[Field, Field] = (
                ((3, value), (20, 2)) if isinstance(value, int) else ((4, value.encode()), (20, 3))
            )
            parts.append((5, _message((1, name.encode()), *typed)))
        self._nodes.append(_message(*parts))
        return outputs[0]

    def model(self, inputs: dict[str, Sequence[int | str]], outputs: dict[str, Sequence[int | str]]) -> bytes:
        """The file. Inputs and outputs are float32; a dimension is a number, or the name of one that varies."""
        parts: list[Field] = [(1, node) for node in self._nodes]
        parts.append((2, b"graph"))
        parts += [(5, tensor) for tensor in self._tensors]
        parts += [(11, _value(name, shape)) for name, shape in inputs.items()]
        parts += [(12, _value(name, shape)) for name, shape in outputs.items()]
        return _message((1, IR_VERSION), (7, _message(*parts)), (8, _message((1, b""), (2, OPSET))))


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = [(1, _message((1, size) if isinstance(size, int) else (2, size.encode()))) for size in shape]
    tensor = _message((1, FLOAT), (2, _message(*dims)))
    return _message((1, name.encode()), (2, _message((1, tensor))))


def _nodes(graph: bytes) -> list[bytes]:
    return [value for number, value in fields(graph) if number == 1]


def _graphs(node: bytes, branch: str) -> list[bytes]:
    """The sub-graphs of that name among a node's attributes."""
    attributes = [value for number, value in fields(node) if number == 5]
    return [_only(each, 6) for each in attributes if _only(each, 1) == branch.encode()]


def _only(message: bytes, number: int) -> Any:
    for found, value in fields(message):
        if found == number:
            return value
    raise ValueError(f"an ONNX message without field {number}")


def _read_tensor(message: bytes) -> NDArray[Any]:
    parts = list(fields(message))
    dims = [value for number, value in parts if number == 1]
    kinds = {FLOAT: np.float32, INT64: np.int64}
    kind = dict(parts).get(2)
    raw = dict(parts).get(9, b"")
    if kind not in kinds:
        raise ValueError(f"an ONNX tensor of type {kind}; known are {FLOAT} (float32) and {INT64} (int64)")
    return np.frombuffer(raw, kinds[kind]).reshape(dims)


def _message(*parts: Field) -> bytes:
    out = bytearray()
    for number, value in parts:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return bytes(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("an ONNX message is cut short")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
