"""How files are fetched and converted, several at a time."""
