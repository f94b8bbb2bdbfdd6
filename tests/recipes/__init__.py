"""Recipes for `promoter_cnn`, tried on worlds whose truth is planted: `python -m tests.recipes`."""
