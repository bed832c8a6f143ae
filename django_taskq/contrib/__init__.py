"""Ways in from other packages and out to them; nothing else of this package imports it."""
