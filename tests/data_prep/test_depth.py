"""Depth of reads: against a count of every base here, and bedtools genomecov in `make parity`."""

import gzip
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyBigWig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import depth
from data_prep.depth import depth_of, write_depth
from data_prep.formats.track_sheet import read_sheet
from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.ranking import rank_assays
from epi2expr_jax.scores.table import score_table

SIZES = {"chr1": 5000, "chr2": 1200, "chr3": 700}  # chr3 has no reads


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=40))
def test_every_base_counts_the_reads_over_it(reads):
    table = np.array(reads, int).reshape(-1, 2)
    starts, ends = table[:, 0], table.sum(axis=1)
    first, last, value = depth_of(starts, ends, 50)
    base = np.arange(50)[:, None]
    expected = ((starts <= base) & (base < ends)).sum(axis=1)
    found = np.repeat(value, last - first)
    np.testing.assert_array_equal(found, expected)
    assert (np.diff(value) != 0).all()


def random_reads(count, seed=0):
    random = np.random.default_rng(seed)
    chrom = random.choice(["chr1", "chr2"], count)
    size = pd.Series(chrom).map(SIZES).to_numpy()
    start = (random.random(count) ** 2 * (size - 36)).astype(int)
    end = np.minimum(start + random.integers(1, 300, count), size)
    return pd.DataFrame(
        {"chrom": chrom, "start": start, "end": end, "name": "N", "score": 1000, "strand": "+"}
    )


def write_reads(table, path):
    table.to_csv(path, sep="\t", header=False, index=False)
    return path


def bases(path):
    with pyBigWig.open(str(path)) as file:
        assert file.chroms() == SIZES
        return {chrom: file.values(chrom, 0, size, numpy=True) for chrom, size in SIZES.items()}


def counted(table):
    found = {chrom: np.zeros(size) for chrom, size in SIZES.items()}
    for row in table.itertuples():
        found[row.chrom][row.start : row.end] += 1
    return found


@pytest.mark.parametrize("name", ["a.tagAlign.gz", "a.bed"])
def test_reads_of_any_order_in_batches(tmp_path, monkeypatch, name):
    monkeypatch.setattr(depth, "_READS", 700)
    monkeypatch.setattr(depth, "_INTERVALS", 300)
    table = random_reads(3000)
    alien = table.head(5).assign(chrom="chrUn")
    beyond = table.head(1).assign(chrom="chr2", start=1190, end=2**32 + 20)  # cut at the end
    path = write_reads(pd.concat([table, alien, beyond]), tmp_path / name)
    result = write_depth(path, tmp_path / "a.bw", SIZES)
    assert (result.reads, result.elsewhere) == (3001, {"chrUn": 5})
    expected = counted(pd.concat([table, beyond]))
    for chrom, values in bases(tmp_path / "a.bw").items():
        np.testing.assert_array_equal(values, expected[chrom])
    assert {path.name for path in tmp_path.iterdir()} == {name, "a.bw"}


READS = [
    'chr1\t10\t60\t"II@\t37\t+',
    "chr1\t20\t70\tIIII",
    "chr1\t100\t150\tI#",
    'chr1\t200\t250\t"I',
]


@pytest.mark.parametrize(
    "top", ["", 'track name="reads"\nbrowser position chr1\n', "# x\n", "chrom\tstart\tend\n"]
)
def test_every_line_that_is_a_read_counts(tmp_path, top):
    # A quotation mark that opens a name must not swallow the lines up to the next.
    path = tmp_path / "reads.txt"
    path.write_bytes(gzip.compress(f"{top}{chr(10).join(READS)}\n".encode()))
    assert write_depth(path, tmp_path / "a.bw", SIZES).reads == 4
    assert bases(tmp_path / "a.bw")["chr1"].sum() == 200


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"CRAM\3", "a CRAM"), (b"@SQ\tSN:chr1\n", "a SAM"), (b"track name=x\n", "no reads")],
)
def test_other_files_than_reads_are_named(tmp_path, content, found):
    path = tmp_path / "reads.bed"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"found {found}"):
        write_depth(path, tmp_path / "a.bw", SIZES)


def test_mapped_records_of_a_bam_count_all_but_deletions(tmp_path):
    pysam = pytest.importorskip("pysam")
    path = tmp_path / "a.BAM"
    header = {"SQ": [{"SN": chrom, "LN": size} for chrom, size in SIZES.items()]}
    expected = {chrom: np.zeros(size) for chrom, size in SIZES.items()}
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for i, (chrom, start, cigar, flag, blocks) in enumerate(
            [
                ("chr1", 10, "36M", 0, [(10, 46)]),
                ("chr1", 20, "10M5D26M", 16, [(20, 30), (35, 61)]),
                ("chr2", 100, "5S20M100N11M", 1024, [(100, 231)]),  # a duplicate, spliced
                ("chr2", 7, "36M", 4, []),  # unmapped, placed at its mate
            ]
        ):
            record = pysam.AlignedSegment(file.header)
            record.query_name, record.flag = f"r{i}", flag
            record.reference_name, record.reference_start = chrom, start
            record.query_sequence, record.cigarstring = "A" * 36, cigar
            file.write(record)
            for begin, end in blocks:
                expected[chrom][begin:end] += 1
    assert write_depth(path, tmp_path / "a.bw", SIZES).reads == 4, "one of them in two pieces"
    for chrom, values in bases(tmp_path / "a.bw").items():
        np.testing.assert_array_equal(values, expected[chrom])
    if shutil.which("bedtools"):
        assert_like_genomecov(tmp_path / "a.bw", ["-ibam", str(path)])


def test_bad_files_are_named(tmp_path):
    whole = gzip.compress(write_reads(random_reads(5000), tmp_path / "x.txt").read_bytes())
    (tmp_path / "cut.tagAlign.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn.tagAlign.gz").write_bytes(whole[:200] + bytes(50) + whole[250:])
    (tmp_path / "words.bed").write_text("chr1\tone\ttwo\n")
    (tmp_path / "turned.bed").write_text("chr1\t9\t20\nchr1\t30\t20\n")
    (tmp_path / "other.bed").write_text("scaffold_9\t9\t20\n")
    (tmp_path / "nowhere.bed").write_text("chr1\t9\t20\n\t9\t20\n")
    (tmp_path / "far.bed").write_text(f"chr1\t9\t{'9' * 5000}\n")
    for name, said in [
        ("nowhere.bed", r"nowhere.bed, read 2: found nan:9-20"),
        ("far.bed", "no readable reads"),
        ("cut.tagAlign.gz", "a damaged gzip file"),
        ("torn.tagAlign.gz", "a damaged gzip file"),
        ("words.bed", "no reads"),
        ("turned.bed", r"turned.bed, read 2: found chr1:30-20"),
        ("other.bed", "scaffold_9 alone"),
        ("absent.bed", "No such file"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            write_depth(tmp_path / name, tmp_path / "out.bw", SIZES)
        (problem,) = error.value.problems
        assert problem.where.startswith(str(tmp_path / name))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_damaged_bam_is_named_and_pysam_says_nothing(tmp_path, capfd):
    pysam = pytest.importorskip("pysam")
    path = tmp_path / "a.bam"
    header = {"SQ": [{"SN": chrom, "LN": size} for chrom, size in SIZES.items()]}
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for start in range(200):
            record = pysam.AlignedSegment(file.header)
            record.query_name, record.reference_name, record.reference_start = "r", "chr1", start
            record.query_sequence, record.cigarstring = "A" * 36, "36M"
            file.write(record)
    whole = path.read_bytes()
    capfd.readouterr()
    for content in (b"", whole[:40], whole[:-40], whole[:-28], whole[:30] + b"?" + whole[31:],
                    whole[:150] + b"?" + whole[151:]):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.bam: found"):
            write_depth(path, tmp_path / "a.bw", SIZES)
    assert capfd.readouterr().err == ""


def test_alignments_of_a_sheet_become_tracks_of_another(tmp_path, program):
    """As a user runs it, and again: done, unless for another assembly; a kill does not stop it."""
    write_reads(random_reads(50), tmp_path / "a.tagAlign")
    (tmp_path / "sheet.csv").write_text("cell,assay,path,unit\nE003,DNase,a.tagAlign,depth\n")
    out = tmp_path / "out"
    (out / "E003-DNase.depth.bw.0.partial.reads").mkdir(parents=True)
    (out / "E003-DNase.depth.bw.0.partial.reads" / "0").write_bytes(b"killed")

    def run(how=program, **sizes):
        genome = tmp_path / "genome.chrom.sizes"
        genome.write_text("".join(f"{name}\t{size}\n" for name, size in sizes.items()))
        given = (f"--tracks={tmp_path / 'sheet.csv'}", f"--assembly={genome}", f"--out={out}")
        done = how("data_prep.depth", *given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def process(*command):
        return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)

    assert "50 reads" in run(process, **SIZES)
    (track,) = read_sheet(out / "tracks.depth.csv").tracks
    assert (track.cell, track.assay, track.unit) == ("E003", "DNase", "depth")
    assert bases(track.sources[0].location)["chr1"].sum() > 0
    assert sorted(path.name for path in out.iterdir()) == [
        "E003-DNase.depth.bw",
        "E003-DNase.depth.bw.json",
        "tracks.depth.csv",
    ]
    assert run(**SIZES) == "1 done before\n"
    assert "50 reads" in run(**SIZES, chr4=9)


def assert_like_genomecov(track, arguments, genome=None):
    told = ["-g", str(genome)] if genome else []
    done = subprocess.run(
        ["bedtools", "genomecov", "-bga", *arguments, *told], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    theirs = [line.split() for line in done.stdout.splitlines()]
    with pyBigWig.open(str(track)) as file:
        ours = [
            [chrom, str(start), str(end), f"{value:.0f}"]
            for chrom in file.chroms()
            for start, end, value in file.intervals(chrom)
        ]
    assert len(ours) > 3
    assert sorted(ours) == sorted(theirs)


@pytest.mark.peers
@pytest.mark.trial
def test_equals_bedtools_on_a_million_reads(tmp_path, trial_size):
    if not shutil.which("bedtools"):
        pytest.skip("needs bedtools, of Debian's packages")
    sizes = {"chr1": 3_000_000, "chr2": 900_000, "chrM": 16_571, "chr4": 5000}
    random = np.random.default_rng(1)
    count = trial_size(20_000, 1_000_000)
    chrom = random.choice(list(sizes)[:3], count, p=[0.7, 0.25, 0.05])
    size = pd.Series(chrom).map(sizes).to_numpy()
    start = (random.random(len(chrom)) ** 3 * (size - 1)).astype(int)
    end = np.minimum(start + random.integers(1, 400, len(chrom)), size)
    table = pd.DataFrame({"chrom": chrom, "start": start, "end": end, "name": "N"})
    # bedtools wants reads grouped by chromosome.
    path = write_reads(table.sort_values("chrom", kind="stable"), tmp_path / "a.tagAlign.gz")
    genome = tmp_path / "genome"
    genome.write_text("".join(f"{name}\t{length}\n" for name, length in sizes.items()))
    write_depth(path, tmp_path / "a.bw", sizes)
    assert_like_genomecov(tmp_path / "a.bw", ["-i", str(path)], genome)


def test_reads_are_thinned_at_random_and_by_their_seed(tmp_path):
    table = random_reads(3000)
    path = write_reads(table, tmp_path / "a.bed")
    kept = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        target = tmp_path / f"{name}.bw"
        made = write_depth(path, target, SIZES, keep_reads=750, thin_seed=seed)
        assert abs(made.reads - 750) < 4 * np.sqrt(750 * 0.75)
        kept[name] = bases(target)
        for chrom, every in counted(table).items():
            assert (kept[name][chrom] <= every).all()
    for chrom, values in kept["one"].items():
        np.testing.assert_array_equal(values, kept["again"][chrom])
    assert any((values != kept["other"][chrom]).any() for chrom, values in kept["one"].items())
    same = write_reads(table, tmp_path / "b.bed")  # another file of the same reads
    write_depth(same, tmp_path / "b.bw", SIZES, keep_reads=750)
    thinned = bases(tmp_path / "b.bw")
    assert any((values != thinned[chrom]).any() for chrom, values in kept["one"].items())
    shares = kept["one"]["chr1"].sum() / counted(table)["chr1"].sum()
    assert shares == pytest.approx(0.25, abs=0.05)


def test_what_cannot_be_thinned_is_refused(tmp_path):
    path = write_reads(random_reads(50), tmp_path / "a.bed")
    with pytest.raises(InputError, match=r"50 reads.*at least the 51 of --keep_reads"):
        write_depth(path, tmp_path / "a.bw", SIZES, keep_reads=51)
    write_depth(path, tmp_path / "a.bw", SIZES)
    for name in ("a.bw", "b.pval.signal.bigwig"):
        source = (tmp_path / "a.bw").rename(tmp_path / name)
        with pytest.raises(InputError, match=r"p-values or fold change, cannot be thinned"):
            write_depth(source, tmp_path / "c.bw", SIZES, keep_reads=10)
        source.rename(tmp_path / "a.bw")
    assert not (tmp_path / "c.bw").exists()


def marks_of_depth(folder, keep_reads, seed):
    """Two marks that say the same of expression, one sequenced four times as deep: their ranking
    by linear models on other chromosomes."""
    random = np.random.default_rng(seed)
    chromosomes, genes, window = 20, 60, 1000
    sizes = {f"chr{k + 1}": genes * window for k in range(chromosomes)}
    level = random.normal(0, 1, (chromosomes, genes))
    tables = []
    for assay, deep in (("deep", 8.0), ("shallow", 2.0)):
        count = random.poisson(deep * np.exp(0.7 * level))
        at = np.repeat(np.arange(chromosomes * genes), count.ravel())
        start = at % genes * window + random.integers(100, 800, len(at))
        reads = pd.DataFrame({"chrom": np.char.add("chr", (at // genes + 1).astype(str)),
                              "start": start, "end": start + 100})  # fmt: skip
        path = write_reads(reads, folder / f"{assay}.bed")
        write_depth(path, folder / "track.bw", sizes, keep_reads=keep_reads)
        with pyBigWig.open(str(folder / "track.bw")) as file:
            means = [file.values(c, 0, size, numpy=True).reshape(genes, -1).mean(1)
                     for c, size in sizes.items()]  # fmt: skip
        x = np.log1p(10 * np.array(means))
        for k, chrom in enumerate(sizes):
            line = np.polyfit(np.delete(x, k, 0).ravel(), np.delete(level, k, 0).ravel(), 1)
            part = pd.DataFrame({"gene_id": [f"{chrom}g{i}" for i in range(genes)], "chrom": chrom})
            part = part.assign(observed=level[k], predicted=np.polyval(line, x[k]), assays=assay)
            tables.append(part)
    table = pd.concat(tables).assign(cell="E1", fold="f", seed=0)
    table = table.assign(observed_raw=table["observed"], predicted_raw=table["predicted"])
    ranked = rank_assays(score_table(table))
    return ranked[ranked["cell"] == "all"].set_index("assay")


def test_marks_of_equal_worth_tie_at_equal_depth(tmp_path, trial_size):
    """Apart by their depth alone; thinned to as many reads, no longer."""
    tied = trials = trial_size(1, 200)
    for seed in range(trials):
        every = marks_of_depth(tmp_path, 0, seed)
        assert every["rank_high"]["deep"] == 1
        assert every["pearson"]["deep"] > every["pearson"]["shallow"] + 0.05
        thinned = marks_of_depth(tmp_path, 2500, seed)
        tied -= int((thinned["rank_low"] != 1).any())
    assert tied >= 0.93 * trials
