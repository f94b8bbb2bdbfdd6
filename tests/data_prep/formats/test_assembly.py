import pytest

from data_prep.formats.assembly import (
    ASSEMBLIES,
    Assembly,
    load_assembly,
    named_assembly,
    recognise_assembly,
    select_chromosomes,
)
from epi2expr_jax.errors import InputError


def test_hg19_lengths_are_the_published_ones():
    sizes = load_assembly("hg19").chrom_sizes
    assert sizes["chr1"] == 249_250_621
    assert sizes["chr22"] == 51_304_566
    assert sizes["chrX"] == 155_270_560
    assert sizes["chrY"] == 59_373_566


@pytest.mark.parametrize(("name", "autosomes"), [("hg19", 22), ("hg38", 22), ("mm10", 19)])
def test_autosomes_are_the_numbered_chromosomes(name, autosomes):
    chromosomes = select_chromosomes(load_assembly(name))
    assert chromosomes == [f"chr{number}" for number in range(1, autosomes + 1)]


def test_all_chromosomes_come_in_natural_order():
    chromosomes = select_chromosomes(load_assembly("mm39"), "all")
    assert chromosomes[:3] == ["chr1", "chr2", "chr3"]
    assert chromosomes[-3:] == ["chrM", "chrX", "chrY"]


def test_a_list_is_spelled_as_the_assembly_spells_it():
    assert select_chromosomes(load_assembly("hg19"), "X, chr10,2,chr2") == ["chr2", "chr10", "chrX"]


def test_every_unknown_chromosome_is_named():
    with pytest.raises(InputError, match=r"unknown chromosomes chr23, Z") as caught:
        select_chromosomes(load_assembly("hg19"), "chr1,chr23,Z")
    assert "chr21" in caught.value.problems[0].expected


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="no chromosome"):
        select_chromosomes(load_assembly("hg19"), " , ")


def test_a_file_of_lengths_may_be_a_fasta_index(tmp_path):
    path = tmp_path / "fly.chrom.sizes"
    path.write_text("# made up\n2L\t23513712\nX\t23542271\t4\t60\t61\n\n")
    assembly = load_assembly(path)
    assert assembly.name == "fly"
    assert assembly.chrom_sizes == {"2L": 23513712, "X": 23542271}
    assert select_chromosomes(assembly) == ["2L"]


@pytest.mark.parametrize(
    ("names", "autosomes"),
    [
        (
            "chr2L chr2R chr3L chr3R chr4 chrX chrY chrM chrUn_1 2RHet",
            "chr2L chr2R chr3L chr3R chr4",
        ),
        ("I II III IV V X MtDNA", "I II III IV V"),
        ("chrI chrII chrIX chrX chrM", "chrI chrII chrIX chrX"),
        ("1A 1B 1D Un", "1A 1B 1D"),
    ],
)
def test_autosomes_of_other_genomes(names, autosomes):
    sizes = dict.fromkeys(names.split(), 9)
    assert set(select_chromosomes(Assembly("x", sizes))) == set(autosomes.split())


def test_a_genome_of_other_names_has_no_known_autosomes():
    with pytest.raises(InputError, match="no numbered chromosome"):
        select_chromosomes(Assembly("x", {"X": 9, "scaffold_1": 9}))


def test_every_bad_line_of_a_file_is_named(tmp_path):
    path = tmp_path / "bad.chrom.sizes"
    path.write_text("chr1\t100\nchr2\nchr1\t100\nchr3\t-5\nchr4\tmany\nchr5\t" + "9" * 5000)
    with pytest.raises(InputError) as caught:
        load_assembly(path)
    where = [problem.where.rpartition(" ")[2] for problem in caught.value.problems]
    assert where == ["2", "3", "4", "5", "6"]


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.chrom.sizes"
    path.write_text("")
    with pytest.raises(InputError, match="no chromosome"):
        load_assembly(path)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"hg17.*hg19, hg38"):
        load_assembly("hg17")


@pytest.mark.parametrize("name", ASSEMBLIES)
def test_an_assembly_is_recognised_by_its_lengths(name):
    sizes = load_assembly(name).chrom_sizes
    assert recognise_assembly(sizes) == name
    assert recognise_assembly({"1": sizes["chr1"], "MT": 1}) == name
    assert recognise_assembly({"chr1": sizes["chr1"] + 1}) is None
    assert recognise_assembly({"chrM": sizes["chrM"]}) is None


def test_a_file_of_lengths_is_called_by_what_it_holds(tmp_path):
    """A store and its page then say hg38; a file of other lengths gives its own name."""
    lengths = load_assembly("hg38").chrom_sizes["chr7"]
    for file, length, name in (
        ("our genome.fa.fai", lengths, "hg38"),
        ("danRer11.chrom.sizes", 5, "danRer11"),
        ("danRer11.fa.fai", 5, "danRer11"),
        (".sizes", 5, ".sizes"),
    ):
        (tmp_path / file).write_text(f"7\t{length}\n")
        assert load_assembly(tmp_path / file).name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GRCh38.p14", "hg38"),
        ("grch37", "hg19"),
        ("T2T-CHM13v2.0", "hs1"),
        ("GRCm39", "mm39"),
        ("##description: genome (GRCh38), version 44, mapped to GRCh37 by gencode-backmap", "hg19"),
        ("#!genome-build GRCm38.p6", "mm10"),
        ("of GCA_000001405.15_GRCh38_no_alt_analysis_set", "hg38"),
        ("hg191 mm100 sub37", None),
    ],
)  # fmt: skip
def test_assemblies_have_other_names(text, name):
    assert named_assembly(text) == name
    if name and " " not in text:
        assert load_assembly(text) == load_assembly(name)


def test_t2t_is_known_by_its_lengths():
    assert recognise_assembly({"1": 248_387_328, "NC_060946.1": 51_324_926}) == "hs1"
