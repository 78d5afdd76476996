"""pocketsphinx, for a bot's own phrases."""
