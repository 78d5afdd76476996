"""The other end: a client in Python."""
