"""How long a silence lasts before it ends the turn, by how complete the words are: pure.

completeness
 1    ____/~~~~~\\_|                            a phrase that no longer one begins with: at once
 0    ____/~~~~~\\_____|                        nobody knows: the speech detector's own hangover
-1    ____/~~~~~\\______________________|       in the middle of a phrase: the user will go on
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Endpointing:
    """How long is waited. Raises `ConfigurationError` unless 0 <= complete_ms <= unknown_ms <= unfinished_ms.

    benchmarks/endpointing.py chose the defaults; docs/endpointing.md shows what they win and cost.
    """

    complete_ms: float = 0.0  # after words that are complete; less than what it takes to know them means at once
    unknown_ms: float = 300.0  # the speech detector's hangover, from which the longer waits start
    unfinished_ms: float = 1300.0  # after words that surely go on

    def __post_init__(self) -> None:
        if not 0 <= self.complete_ms <= self.unknown_ms <= self.unfinished_ms:
            raise ConfigurationError(
                f"need 0 <= complete_ms <= unknown_ms <= unfinished_ms, got {self.complete_ms}, {self.unknown_ms} "
                f"and {self.unfinished_ms}"
            )

    def hangover_ms(self, completeness: float) -> float | None:
        """Return how much silence ends the turn, `completeness` being -1 to 1; None: whatever ends it anyway."""
        if completeness >= 1:
            return self.complete_ms
        if completeness >= 0:
            return None
        return self.unknown_ms + min(1.0, -completeness) * (self.unfinished_ms - self.unknown_ms)
