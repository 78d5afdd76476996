"""Sockets, and who hosts the conversations that arrive on them."""
