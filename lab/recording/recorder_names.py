"""What processors are called in recordings."""

from __future__ import annotations

from collections.abc import Sequence

from pipecat.processors.frame_processor import FrameProcessor


def names_of(processors: Sequence[FrameProcessor]) -> list[str]:
    """Return what each processor is called in recordings: its class, and a number from the second of a kind on."""
    names: list[str] = []
    for processor in processors:
        kind = getattr(processor, "stands_for", type(processor).__name__)
        count = sum(name.split("#")[0] == kind for name in names)
        names.append(f"{kind}#{count + 1}" if count else kind)
    return names
