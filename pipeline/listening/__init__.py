"""From probabilities and words to a turn of the user's: pure decisions."""
