"""What the programs share: flags, shares of the runs, progress, genes, edits."""
