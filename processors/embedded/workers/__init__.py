"""Engines in child processes that all conversations share."""
