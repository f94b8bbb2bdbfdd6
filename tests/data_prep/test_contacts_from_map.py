import pandas as pd
import pytest

from data_prep.contacts.contact_files import read_contact_file
from epi2expr_jax.errors import Problems

SIZES = {"chr1": 600_000}
LOOP = "chr1\t10000\t15000\tchr1\t90000\t95000\t7\t{}\n"
FITHICHIP = "chr1\ts1\te1\tchr2\ts2\te2\tcc\tQ-Value_Bias\n"


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "own.chrom.sizes").write_text("chr1\t600000\n")
    (tmp_path / "genes.csv").write_text("gene_id,chrom,tss,strand\nG1,chr1,100000,+\n")
    (tmp_path / "peaks.bed").write_text(
        "chr1\t149800\t150200\nchr1\t100500\t100900\nchr1\t0\t400\n"
    )
    return tmp_path


def command(program, folder, *more):
    sizes = folder / "own.chrom.sizes"
    made = folder / "out.bedpe"
    return made, program(
        "data_prep.contacts_from_map", f"--assembly={sizes}", f"--out={made}", *more
    )


def test_elements_in_reach_become_contacts_that_build_store_reads(inputs, program):
    given = [f"--elements={inputs / 'peaks.bed'}", f"--genes={inputs / 'genes.csv'}"]
    made, done = command(program, inputs, *given)
    assert done.returncode == 0, done.stderr
    assert "2 contacts, scores of distance alone; power law of exponent -1.024" in done.stdout
    file = read_contact_file(made, 0, SIZES, Problems())
    assert file.format == "bedpe"
    assert file.table.values.tolist() == [
        ["chr1", 100000, 100001, "chr1", 0, 400, pytest.approx(0.998**-1.024, rel=1e-5)],
        ["chr1", 100000, 100001, "chr1", 149800, 150200, pytest.approx(0.5**-1.024, rel=1e-5)],
    ]
    made, done = command(program, inputs, *given, "--min_distance_bp=0", "--reach_bp=60000")
    assert len(pd.read_csv(made, sep="\t")) == 2
    _, done = command(program, inputs, *given, "--min_distance_bp=110000", "--reach_bp=120000")
    assert done.returncode == 2
    assert "give a larger --reach_bp" in done.stderr
    _, done = command(program, inputs, *given, "--least_bp=0")
    assert done.returncode == 2
    assert "give --min_distance_bp=0" in done.stderr


def test_loops_are_listed_both_ways(inputs, program):
    loops = inputs / "loops.bed"
    loops.write_text(FITHICHIP + LOOP.format(0.001))
    made, done = command(program, inputs, f"--loops={loops}", "--score_column=Q-Value_Bias")
    assert done.returncode == 0, done.stderr
    rows = read_contact_file(made, None, SIZES, Problems()).table.values.tolist()
    one, other = ["chr1", 10_000, 15_000], ["chr1", 90_000, 95_000]
    assert rows == [[*one, *other, 3.0], [*other, *one, 3.0]]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], "neither --elements nor --loops"),
        (["--loops=a", "--elements=b"], "both --elements and --loops"),
        (["--loops=a", "--reach_bp=7"], "--reach_bp with --loops"),
        (["--elements=a", "--score_column=7"], "--score_column with --elements"),
    ],
)
def test_flags_that_make_no_sense_are_refused(inputs, program, given, found):
    _, done = command(program, inputs, *given)
    assert done.returncode == 2
    assert found in done.stderr
