"""What an object was made with, remembered so that it can be told, and made again with one setting changed."""

from __future__ import annotations

from typing import Any, Self


class Reconfigurable:
    """Remembers the keyword arguments of its constructor; costs one reference."""

    _given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._given = kwargs
        return made

    @property
    def given(self) -> dict[str, Any]:
        """The keyword arguments that it was made with; what was left at its default is not among them."""
        return dict(self._given)
