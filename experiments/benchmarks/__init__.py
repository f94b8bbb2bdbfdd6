"""Each of the benchmarks. Not part of the installed package."""
