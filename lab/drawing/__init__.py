"""A recording as text, as a picture, as a page."""
