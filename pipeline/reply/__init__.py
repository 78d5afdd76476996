"""One reply of the bot's, from the question to the last sample heard."""
