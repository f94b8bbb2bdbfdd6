"""What accelerators do with the programs: measured on one, or read from what is compiled for it."""
