"""What cuts the bot, and what of its voice may still pass after that."""
