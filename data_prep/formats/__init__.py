"""One reader for each public file format."""
