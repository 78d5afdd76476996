"""The Silero network: its weights, one ONNX session per process and rate, one batched step. No threads, no loop.

Model: https://github.com/snakers4/silero-vad (MIT). Input (B, 64 + 512) float32 at 16 kHz, the last 64 samples of the
chunk before in front; (B, 32 + 256) at 8 kHz. State (2, B, 128) float32, zeros at the start.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from loguru import logger
from numpy.typing import NDArray

from ....pipeline.errors import ConfigurationError
from .flat_graph import flat_model

CHUNK_SAMPLES = {16000: 512, 8000: 256}  # 32 ms; the only two shapes that the model takes
CONTEXT_SAMPLES = {16000: 64, 8000: 32}  # tail of the chunk before, in front of each chunk
SAME = 1e-5  # two networks whose probabilities differ by no more are one

Chunk = NDArray[np.int16]


def model_path() -> Path:
    """The ONNX file of the installed `silero-vad` wheel, else Pipecat's identical copy. Imports neither, nor torch."""
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    return Path(str(importlib.resources.files("pipecat.audio.vad"))) / "data" / "silero_vad.onnx"


Network = Callable[[NDArray[np.float32], NDArray[np.float32]], Sequence[Any]]  # samples, state -> probabilities, state

_lock = threading.Lock()
_steps: dict[int, Network] = {}  # by sample rate; each loaded once per process: 40 ms


def step(sample_rate: int) -> Network:
    """The process's only network for that rate; the first call loads it. Thread-safe, and so is what it returns."""
    with _lock:
        if sample_rate not in _steps:
            _steps[sample_rate] = load(model_path().read_bytes(), sample_rate)
        return _steps[sample_rate]


def load(published: bytes, sample_rate: int) -> Network:
    """The flat graph of these weights, if it answers what the published one answers; else that one, with a warning."""
    reference, rate = _session(published), np.array(sample_rate, np.int64)

    def as_published(samples: NDArray[np.float32], state: NDArray[np.float32]) -> Sequence[Any]:
        return reference.run(None, {"input": samples, "state": state, "sr": rate})

    try:
        flat = _session(flat_model(published, sample_rate))

        def flattened(samples: NDArray[np.float32], state: NDArray[np.float32]) -> Sequence[Any]:
            return flat.run(None, {"input": samples, "state": state})

        worst = _difference(flattened, as_published, sample_rate)
        if worst > SAME:
            raise ValueError(f"its probabilities differ by {worst:.1e}")
    except Exception as error:  # whatever another file of weights may hold, it still runs the way it was published
        logger.warning(f"Silero runs as published, at two to three times the CPU; the flat graph failed: {error!r}")
        return as_published
    return flattened


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])


def _difference(one: Network, other: Network, sample_rate: int) -> float:
    """The largest difference of their probabilities over a second of a voice-like buzz that comes and goes in noise."""
    random, size = np.random.default_rng(1), CONTEXT_SAMPLES[sample_rate] + CHUNK_SAMPLES[sample_rate]
    states, worst = [np.zeros((2, 2, 128), np.float32)] * 2, 0.0
    for chunk in range(32):
        time_s = (np.arange(size) + chunk * size) / sample_rate
        buzz = sum(np.sin(2 * np.pi * 140 * harmonic * time_s) / harmonic for harmonic in range(1, 25))
        loudness = np.array([[0.2], [0.02]]) * (chunk % 16 > 4)
        samples = (loudness * buzz + random.normal(0, 0.002, (2, size))).astype(np.float32)
        answers = [run(samples, state) for run, state in zip((one, other), states, strict=True)]
        states = [state for _, state in answers]
        worst = max(worst, float(np.abs(answers[0][0] - answers[1][0]).max()))
    return worst


class RecurrentState:
    """What the model carries from one chunk of a stream to the next."""

    def __init__(self, sample_rate: int) -> None:
        if sample_rate not in CHUNK_SAMPLES:
            raise ConfigurationError(f"Silero VAD hears 8000 or 16000 Hz, not {sample_rate}; resample first")
        self.sample_rate = sample_rate  # Hz
        self.context = np.zeros(CONTEXT_SAMPLES[sample_rate], np.float32)  # scaled to +-1
        self.hidden = np.zeros((2, 128), np.float32)  # of its recurrent layer

    def reset(self) -> None:
        """Back to the start of a stream."""
        self.context = np.zeros_like(self.context)
        self.hidden = np.zeros_like(self.hidden)


def infer(states: Sequence[RecurrentState], chunks: Sequence[Chunk]) -> NDArray[np.float32]:
    """Probabilities `(B,) float32` of one chunk each of B streams of the same rate; their states move on.

    Not for one state in two threads at a time.
    """
    rate = states[0].sample_rate
    context = CONTEXT_SAMPLES[rate]
    rows = np.empty((len(states), context + CHUNK_SAMPLES[rate]), np.float32)
    hidden = np.empty((2, len(states), 128), np.float32)
    for row, (state, chunk) in enumerate(zip(states, chunks, strict=True)):
        rows[row, :context] = state.context
        rows[row, context:] = chunk
        hidden[:, row] = state.hidden
    rows[:, context:] *= 1 / 32768  # a power of two: exact
    probabilities, hidden = step(rate)(rows, hidden)
    for row, state in enumerate(states):
        state.context = rows[row, -context:].copy()  # a view would keep the whole batch alive
        state.hidden = hidden[:, row].copy()
    return probabilities[:, 0]
