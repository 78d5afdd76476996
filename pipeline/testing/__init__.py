"""Test a pipeline offline: virtual time, a scripted client, synthetic audio."""

from .call import Call, CallError, run_offline
from .clock import StuckError, VirtualLoop, run_virtual

__all__ = ["Call", "CallError", "StuckError", "VirtualLoop", "run_offline", "run_virtual"]
