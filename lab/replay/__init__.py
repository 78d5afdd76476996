"""A recording decided again, under the same settings or others, and measured."""
