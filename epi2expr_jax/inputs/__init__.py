"""From a store to what a model reads."""
