"""Programs: train, evaluate, report and all that is asked of a run."""
