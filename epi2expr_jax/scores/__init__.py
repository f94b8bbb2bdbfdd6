"""Which assay predicts best, and how sure that is."""
