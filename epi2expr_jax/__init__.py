"""Which epigenetic mark best predicts gene expression, where, and how sure are we?"""
