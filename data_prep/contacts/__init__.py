"""Promoter contacts, from public files to the regions of genes."""
