"""Parts that a conversation may have beside its stages: one file each, put into a chain where wanted."""
