"""From files to the table of enrichment and its figure."""

import gzip

import numpy as np
import pandas as pd
import pytest
from absl.testing import flagsaver

from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret.enrichment import EFFECT
from epi2expr_jax.training import checkpoint
from experiments import enrichment as program
from experiments.enrichment import describe, run_enrichment

GENES, REGIONS = 120, 9


@pytest.fixture
def run_dir(tmp_path):
    """A run directory, tables of places of two marks, of eQTLs (the first mark says where they
    lie, the other nothing) and of tested variants."""
    random = np.random.default_rng(0)
    checkpoint.write_card(tmp_path, {"store": {"assembly": "hg19"}})
    gene, place = (axis.ravel() for axis in np.indices((GENES, REGIONS)))
    start = 50_000 + 100_000 * (gene // 12) + 2000 * place
    effect = random.normal(size=(GENES, REGIONS))
    table = pd.DataFrame(
        {
            "gene_id": np.char.mod("ENSG%05d", gene),
            "chrom": np.char.mod("chr%d", gene % 12 + 1),
            "start": start,
            "end": start + 2000,
            "distance": 2000 * (place - REGIONS // 2),
            "signal": random.gamma(2, 1, gene.size),
        }
    )
    first = table.assign(cell="E003", assays="H3K27ac", effect=effect.ravel())
    other = table.assign(cell="E003", assays="H3K9me3", effect=random.normal(size=gene.size))
    pd.concat([first, other]).to_parquet(tmp_path / "effects.parquet", index=False)
    odds = np.exp(2.0 * np.abs(effect))
    hit = (random.random((GENES, 1)) > (odds / odds.sum(1, keepdims=True)).cumsum(1)).sum(1)
    eqtls = table[place == np.repeat(hit.clip(max=REGIONS - 1), REGIONS)]
    eqtls = pd.DataFrame(
        {"gene_id": eqtls.gene_id + ".3", "chrom": eqtls.chrom.str[3:], "pos": eqtls.start + 5}
    )
    with gzip.open(tmp_path / "eqtls.tsv.gz", "wt") as file:
        eqtls.to_csv(file, sep="\t", index=False)
    tested = pd.concat([table.assign(pos=table.start + step) for step in (5, 700, 1900)])
    tested[["gene_id", "chrom", "pos"]].to_csv(tmp_path / "tested.csv", index=False)
    return tmp_path


def tables_in(folder, *names):
    files = {"regions": "effects.parquet", "eqtls": "eqtls.tsv.gz", "background": "tested.csv"}
    return {name: folder / files[name] for name in names or files}


def test_each_mark_is_tested_and_written(run_dir):
    table, notes = run_enrichment(run_dir, tables_in(run_dir), "hg19", permutations=199)
    effect = table[(table.predictor == EFFECT) & (table.matched == "closely")].set_index("assays")
    assert effect.p["H3K27ac"] == 1 / 200
    assert effect.low["H3K27ac"] > 1.1
    assert effect.low["H3K9me3"] < 1 < effect.high["H3K9me3"]
    assert set(table.n_regions) == {GENES * REGIONS}
    assert notes == []
    written = pd.read_csv(run_dir / "enrichment.csv")
    np.testing.assert_allclose(written.enrichment, table.enrichment, rtol=1e-5)
    assert pd.read_parquet(run_dir / "enrichment.parquet").equals(table)
    for kind in ("png", "svg"):
        assert (run_dir / f"enrichment.{kind}").stat().st_size > 5000
    assert not list(run_dir.glob("*.partial"))
    lines = describe(table).splitlines()
    assert lines[0].startswith("E003, H3K27ac: 120 genes with variants, 1,080 places, 12 chrom")
    assert len(lines) == 2 * (2 + 4 * (1 + 3))


def test_without_background_and_from_the_command_line(run_dir, capsys):
    program.define_run()
    program.define_flags()
    files = {name: str(path) for name, path in tables_in(run_dir, "regions", "eqtls").items()}
    given = {"run": str(run_dir), "assembly": "GRCh37", "permutations": 19, **files}
    names = ["run", "regions", "eqtls", "background", "assembly", "top", "permutations", "seed"]
    try:
        program.FLAGS.mark_as_parsed()
        with flagsaver.flagsaver(**given):
            program.main()
        with flagsaver.flagsaver(**given | {"assembly": "hg38"}), pytest.raises(InputError):
            program.main()
    finally:
        for name in names:
            delattr(program.FLAGS, name)
    shown = capsys.readouterr().out
    assert "nearest to the TSS" in shown
    assert "matched: closely; a small p may also come from thresholds of signal" in shown
    assert "bands of distance, thresholds of signal, kinds of genes\n" in shown
    assert f"{run_dir}/enrichment.csv" in shown


def test_files_that_cannot_be_read_are_named_together(run_dir):
    (run_dir / "eqtls.tsv.gz").write_bytes(b"no gzip")
    (run_dir / "effects.parquet").write_bytes(b"no parquet")
    (run_dir / "tested.csv").unlink()
    with pytest.raises(InputError) as caught:
        run_enrichment(run_dir, tables_in(run_dir), "hg19")
    assert [problem.where for problem in caught.value.problems] == [
        str(run_dir / name) for name in ("effects.parquet", "eqtls.tsv.gz", "tested.csv")
    ]
    assert not list(run_dir.glob("enrichment*"))
