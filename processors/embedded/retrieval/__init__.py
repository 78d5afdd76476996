"""Passages from Markdown, and the words that count in them."""
