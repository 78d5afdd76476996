"""The mirror of conversations, and the stores it writes to."""
