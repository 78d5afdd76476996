"""The flat graph of Silero answers what the published one answers, or is not used."""

from __future__ import annotations

import numpy as np
import pytest
from loguru import logger

from leibniz_voice.processors.embedded.silero import network as silero_net
from leibniz_voice.processors.embedded.silero.network import CHUNK_SAMPLES, CONTEXT_SAMPLES, load, model_path
from leibniz_voice.processors.embedded.silero.onnx_format import GraphWriter, branch_constants, fields


@pytest.fixture
def warnings():
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


def published() -> bytes:
    return model_path().read_bytes()


def renamed(**names: str) -> bytes:
    """The published file with its constants called otherwise, which changes nothing of what it computes."""
    model, swap = published(), b"@"
    for old, new in names.items():
        a, b = old.encode(), new.encode()
        held = swap + a[1:]
        model = model.replace(b, held).replace(a, b).replace(held, a)
    return model


def answers(step, rate: int, rows: int = 3) -> np.ndarray:
    random, state = np.random.default_rng(3), np.zeros((2, rows, 128), np.float32)
    told = []
    for loudness in (0, 0.003, 0.1, 0.7, 0.02) * 4:
        samples = random.normal(0, loudness, (rows, CONTEXT_SAMPLES[rate] + CHUNK_SAMPLES[rate])).astype(np.float32)
        probability, state = step(samples, state)
        told.append(probability)
    return np.array(told)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 8000])
def test_the_flat_graph_is_used_and_answers_as_the_published_one(rate, warnings, monkeypatch):
    flat = load(published(), rate)
    assert warnings == []
    monkeypatch.setattr(silero_net, "SAME", -1.0)  # nothing is equal enough: the published graph
    reference = load(published(), rate)
    assert len(warnings) == 1
    assert np.abs(answers(flat, rate) - answers(reference, rate)).max() < 1e-5


@pytest.mark.slow
def test_weights_that_are_not_where_they_were_run_as_published(warnings):
    step = load(renamed(reparam_conv="reparam_bonv"), 16000)
    assert "reparam_conv" in warnings[0]
    assert np.abs(answers(step, 16000) - answers(load(published(), 16000), 16000)).max() < 1e-5


@pytest.mark.slow
def test_a_flat_graph_that_answers_otherwise_is_found_out(warnings):
    step = load(renamed(weight_ih="weight_hh"), 16000)  # the LSTM's two matrices, taken for each other
    assert "differ" in warnings[0]
    assert np.abs(answers(step, 16000) - answers(load(published(), 16000), 16000)).max() < 1e-5


def test_a_written_graph_is_read_back_field_by_field():
    graph = GraphWriter()
    assert graph.node("Gather", "x", graph.constant([[0, 300]]), axis=1, mode="wrap") == "value0"
    model = dict(fields(graph.model({"x": ["rows", 2]}, {"value0": ["rows", 1, 2]})))
    inner = list(fields(model[7]))
    assert [number for number, _ in inner] == [1, 2, 5, 11, 12]
    node, tensor = dict(fields(inner[0][1])), dict(fields(inner[2][1]))
    assert node[4] == b"Gather"
    assert tensor[9] == np.array([[0, 300]]).tobytes()


def test_a_file_that_is_cut_short_or_no_model_is_refused():
    for bad in (published()[:1000], b"\x0b", b"\xff" * 12, b""):
        with pytest.raises(ValueError, match="ONNX"):
            branch_constants(bad, "then_branch")
