"""Faults injected into every command; see `python -m tests.torture --help`."""
