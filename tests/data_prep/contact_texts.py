"""Files of promoter contacts, and Chromoformer's metadata, as their makers write them."""

import csv
import pickle

import numpy as np

SIZES = {"chr1": 1_000_000, "chr2": 200_000}
BAIT = ("chr1", 1000, 2000)
SECOND = ("chr1", 9000, 9500)
# bait, other end, score
CONTACTS = [
    (BAIT, ("chr1", 50_000, 55_000), 3.5),
    (BAIT, ("chr1", 60_000, 61_500), 7.25),
    (SECOND, ("chr1", 70_000, 75_000), 6.0),
]
META_HEADER = ["gene_id", "expression", "eid", "label", "chrom", "start", "end", "strand",
               "neighbors", "scores"]  # fmt: skip


def interval(place) -> str:
    return f"{place[0]}:{place[1]}-{place[2]}"


def bedpe(contacts, mark=""):
    header = "chrom1 start1 end1 chrom2 start2 end2 name score strand1 strand2"
    lines = [f"{mark}{header}"] + [
        " ".join(map(str, [*bait, *other, "x", score, ".", "."])) for bait, other, score in contacts
    ]
    return "\n".join(lines).replace(" ", "\t") + "\n"


def ibed(contacts):
    lines = ["bait_chr bait_start bait_end bait_name otherEnd_chr otherEnd_start otherEnd_end "
             "otherEnd_name N_reads score"]  # fmt: skip
    lines += [
        f"{b[0]} {b[1] + 1} {b[2]} PROM {o[0]} {o[1] + 1} {o[2]} . 9 {score}"
        for b, o, score in contacts
    ]
    return "\n".join(lines).replace(" ", "\t") + "\n"


def pickles(folder, contacts, scores=None):
    neighbours = {}
    for bait, other, _ in contacts:
        neighbours.setdefault(interval(bait), set()).add(interval(other))
    if scores is None:
        scores = {(interval(b), interval(o)): np.float64(score) for b, o, score in contacts}
    path = folder / "H1_frag2neighbors.pickle"
    path.write_bytes(pickle.dumps(neighbours))
    (folder / "H1_pair2score.pickle").write_bytes(pickle.dumps(scores))
    return path


def write_meta(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([META_HEADER, *rows])
