"""Text on its way to a voice: sentences, and what of a text is spoken."""
