"""The Silero network: its weights, one ONNX session per process, one batched step. No threads, no loop.

Model: https://github.com/snakers4/silero-vad (MIT). Input (B, 64 + 512) float32 at 16 kHz, the last 64 samples of the
chunk before in front; (B, 32 + 256) at 8 kHz. State (2, B, 128) float32, zeros at the start.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...pipeline.errors import ConfigurationError

CHUNK_SAMPLES = {16000: 512, 8000: 256}  # 32 ms; the only two shapes that the model takes
CONTEXT_SAMPLES = {16000: 64, 8000: 32}  # tail of the chunk before, in front of each chunk

Chunk = NDArray[np.int16]


def model_path() -> Path:
    """The ONNX file of the installed `silero-vad` wheel, else Pipecat's identical copy. Imports neither, nor torch."""
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    return Path(str(importlib.resources.files("pipecat.audio.vad"))) / "data" / "silero_vad.onnx"


_session_lock = threading.Lock()
_session: onnxruntime.InferenceSession | None = None  # loaded once per process: 10 MB, 30 ms


def session() -> onnxruntime.InferenceSession:
    """The process's only ONNX session; the first call loads it. Thread-safe, and so is its `run`."""
    global _session
    with _session_lock:
        if _session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
            _session = onnxruntime.InferenceSession(
                str(model_path()), sess_options=options, providers=["CPUExecutionProvider"]
            )
        return _session


class Memory:
    """What the model carries from one chunk of a stream to the next."""

    def __init__(self, sample_rate: int) -> None:
        if sample_rate not in CHUNK_SAMPLES:
            raise ConfigurationError(f"Silero VAD hears 8000 or 16000 Hz, not {sample_rate}; resample first")
        self.sample_rate = sample_rate  # Hz
        self.context = np.zeros(CONTEXT_SAMPLES[sample_rate], np.float32)  # scaled to +-1
        self.state = np.zeros((2, 128), np.float32)  # recurrent

    def reset(self) -> None:
        """Back to the start of a stream."""
        self.context = np.zeros_like(self.context)
        self.state = np.zeros_like(self.state)


def infer(memories: Sequence[Memory], chunks: Sequence[Chunk]) -> NDArray[np.float32]:
    """Probabilities `(B,) float32` of one chunk each of B streams of the same rate; their memories move on.

    Not for one memory in two threads at a time.
    """
    rate = memories[0].sample_rate
    context = CONTEXT_SAMPLES[rate]
    rows = np.empty((len(memories), context + CHUNK_SAMPLES[rate]), np.float32)
    state = np.empty((2, len(memories), 128), np.float32)
    for row, (memory, chunk) in enumerate(zip(memories, chunks, strict=True)):
        rows[row, :context] = memory.context
        rows[row, context:] = chunk
        state[:, row] = memory.state
    rows[:, context:] *= 1 / 32768  # a power of two: exact
    feed = {"input": rows, "state": state, "sr": np.array(rate, np.int64)}
    outputs: Any = session().run(None, feed)  # dense arrays, which the signature does not promise
    probabilities, state = outputs
    for row, memory in enumerate(memories):
        memory.context = rows[row, -context:].copy()  # a view would keep the whole batch alive
        memory.state = state[:, row].copy()
    return probabilities[:, 0]
