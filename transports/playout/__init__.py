"""The two ends of a pipeline, and the pace of the bot's audio."""
