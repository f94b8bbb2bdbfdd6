"""Public files to a window store."""
