"""Silero's network as one flat ONNX graph, with the weights of its published file: a half to a quarter of the time.

The published graph asks for the rate, and for the rank of each input, in nested `If`s that no optimiser folds, and its
convolutions read all their weights again for every row of a batch. Here each is one matrix product over all rows:

    (B, 64 + 512) -> mirrored at the end, 5 blocks of 128 -> 4 windows of 256 -> spectrum, 129 magnitudes each
      -> 128 channels x 4 -> 64 x 2 -> 64 -> 128 -> LSTM of 128 -> 1 probability            (half of it all at 8 kHz)

Same inputs and outputs as the published one but for the rate; `silero_net` compares the two before it uses this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_format import GraphWriter, branch_constants

BRANCHES = {16000: "then_branch", 8000: "else_branch"}  # of the published graph's If on the rate

Weights = dict[str, NDArray[Any]]


def flat_model(published: bytes, sample_rate: int) -> bytes:
    """The ONNX file for one rate: `input` (B, context + chunk), `state` (2, B, 128) -> probability (B, 1), state.

    Raises `KeyError` or `ValueError` if the published file is not of the kind that this was written for.
    """
    weights = branch_constants(published, BRANCHES[sample_rate])
    graph = GraphWriter()
    spectrum, hop = _spectrum(graph, weights)
    _recurrent(graph, weights, _encoded(graph, weights, spectrum))
    state: list[int | str] = [2, "rows", 128]
    inputs = {"input": ["rows", 4 * hop + hop // 2], "state": state}
    return graph.model(inputs, {"probability": ["rows", 1], "new_state": state})


def _spectrum(graph: GraphWriter, weights: Weights) -> tuple[str, int]:
    """Magnitudes (B, 4, bins) of four windows that overlap by half, and the samples from one to the next."""
    basis = weights["stft.forward_basis_buffer"][:, 0]  # (2 * bins, window): cosines, then sines
    bins, hop = len(basis) // 2, basis.shape[1] // 2
    value = graph.node("Pad", "input", graph.constant([0, 0, 0, hop // 2]), mode="reflect")
    value = graph.node("Reshape", value, graph.constant([0, 5, hop]))
    value = graph.node("Gather", value, graph.constant([[0, 1], [1, 2], [2, 3], [3, 4]]), axis=1)
    value = graph.node("Reshape", value, graph.constant([-1, 2 * hop]))
    value = graph.node("MatMul", value, graph.constant(basis.T, np.float32))
    value = graph.node("Mul", value, value)
    graph.node("Split", value, graph.constant([bins, bins]), to=["real", "imaginary"], axis=1)
    value = graph.node("Sqrt", graph.node("Add", "real", "imaginary"))
    return graph.node("Reshape", value, graph.constant([-1, 4, bins])), hop


def _encoded(graph: GraphWriter, weights: Weights, spectrum: str) -> str:
    """(B, 128) out of (B, 4, bins): four convolutions of width 3, with strides 1, 2, 2, 1."""
    first, second, third, fourth = (weights[f"encoder.{n}.reparam_conv.weight"] for n in range(4))  # (to, from, 3)
    biases = [weights[f"encoder.{n}.reparam_conv.bias"] for n in range(4)]
    value = graph.node("Pad", spectrum, graph.constant([0, 1, 0, 0, 1, 0]))
    value = graph.node("Gather", value, graph.constant([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]), axis=1)
    value = graph.node("Reshape", value, graph.constant([-1, 3 * first.shape[1]]))
    value = _layer(graph, value, first.transpose(2, 1, 0).reshape(-1, len(first)), biases[0])
    value = graph.node("Reshape", value, graph.constant([-1, 4 * len(first)]))
    value = _layer(graph, value, _strided(second), np.tile(biases[1], 2))
    pair = third[:, :, 1:]  # of two positions and the padding before them, the padding's weights meet zeros
    value = _layer(graph, value, pair.transpose(2, 1, 0).reshape(-1, len(third)), biases[2])
    return _layer(graph, value, fourth[:, :, 1].T, biases[3])  # one position between two of padding


def _strided(weight: NDArray[Any]) -> NDArray[Any]:
    """A convolution of stride 2 from 4 positions to 2 as one matrix: three eighths of it zeros, but one product."""
    dense = np.zeros((4, weight.shape[1], 2, len(weight)), np.float32)
    for position in range(2):
        for tap in range(3):
            at = 2 * position + tap - 1
            if at >= 0:  # before the first is padding
                dense[at, :, position] = weight[:, :, tap].T
    return dense.reshape(4 * weight.shape[1], -1)


def _layer(graph: GraphWriter, value: str, matrix: NDArray[Any], bias: NDArray[Any]) -> str:
    value = graph.node("Gemm", value, graph.constant(matrix, np.float32), graph.constant(bias, np.float32))
    return graph.node("Relu", value)


def _recurrent(graph: GraphWriter, weights: Weights, value: str) -> None:
    """One step of the LSTM, and the probability."""
    inner = {name: _gates(weights[f"decoder.rnn.{name}"]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    bias = np.concatenate([inner["bias_ih"], inner["bias_hh"]])
    matrices = [graph.constant(each[None], np.float32) for each in (inner["weight_ih"], inner["weight_hh"], bias)]
    graph.node("Split", "state", graph.constant([1, 1]), to=["hidden", "cell"], axis=0)
    value = graph.node("Unsqueeze", value, graph.constant([0]))
    after = ["", "new_hidden", "new_cell"]
    graph.node("LSTM", value, *matrices, "", "hidden", "cell", to=after, hidden_size=128)
    graph.node("Concat", "new_hidden", "new_cell", to=["new_state"], axis=0)
    value = graph.node("Reshape", graph.node("Relu", "new_hidden"), graph.constant([-1, 128]))
    matrix, bias = weights["decoder.decoder.2.weight"][0], weights["decoder.decoder.2.bias"]
    value = graph.node("Gemm", value, graph.constant(matrix, np.float32), graph.constant(bias, np.float32))
    graph.node("Sigmoid", value, to=["probability"])


def _gates(stacked: NDArray[Any]) -> NDArray[Any]:
    """Torch stacks an LSTM's gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    into, forget, cell, out = np.split(stacked, 4)
    return np.concatenate([into, out, forget, cell])
