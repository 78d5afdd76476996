"""The recording: who writes it, its files, and what can be read from it."""
