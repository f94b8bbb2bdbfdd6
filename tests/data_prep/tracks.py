"""bigWigs of a few runs."""

import pyBigWig


def write_track(path, sizes: dict[str, int], runs: list[tuple[str, int, int, float]]):
    """A bigWig of runs `(chrom, start, end, value)`, in order."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(sizes.items()))
        chroms, starts, ends, values = map(list, zip(*runs, strict=True))
        file.addEntries(chroms, starts, ends=ends, values=values)
    return path
