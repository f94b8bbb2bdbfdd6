"""Other genomes than hg19, with files as people have them, to a report: by no flag but paths."""

import gzip
import re
import shlex

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep.simulate import simulate

# Of the training alone, which would take minutes.
SMALL = ["--model=promoter_cnn", "--width=0.02", "--epochs=1", "--batch_size=16"]
CALLED = {"hg38": "GRCh38", "mm10": "GRCm38"}


def as_people_have_them(folder, assembly):
    """deepTools tracks of CPM by 50 bp, TPM by symbol, and a GTF with the comments of GENCODE."""
    made = simulate(folder / "made", genes=60, cells=1, assays=2, assembly=assembly, chromosomes=5)
    sheet = pd.read_csv(made / "tracks.csv")
    for name in sheet.path:
        with pyBigWig.open(str(made / name)) as raw, pyBigWig.open(str(folder / name), "w") as cpm:
            sizes, ends = raw.chroms(), {}
            cpm.addHeader([*sizes.items()])
            for chrom in sizes:
                ends[chrom] = max((end for _, end, _ in raw.intervals(chrom) or ()), default=0)
                bases = raw.values(chrom, 0, ends[chrom] // 50 * 50, numpy=True)
                bins = 0.3 * np.nan_to_num(bases).reshape(-1, 50).mean(axis=1, dtype=float)
                if len(bins):
                    cpm.addEntries(chrom, 0, values=bins.tolist(), span=50, step=50)
    sheet[["cell", "assay", "path"]].assign(unit="CPM").to_csv(folder / "tracks.csv", index=False)
    gtf = gzip.decompress((made / "genes.gtf.gz").read_bytes()).decode()
    text = f"##description: evidence-based annotation of the genome ({CALLED[assembly]}), v44\n"
    (folder / "genes.gtf.gz").write_bytes(gzip.compress((text + gtf).encode()))
    names = dict(re.findall(r'gene_id "(\w+)\.\d+"; gene_name "(\w+)"', gtf))
    table = pd.read_csv(made / "RPKM.pc.gz", sep="\t", index_col=False)[
        ["gene_id", *set(sheet.cell)]
    ]
    table["gene_id"] = table["gene_id"].map(names)
    table = table.set_index("gene_id")
    (table / table.sum() * 1e6).to_csv(folder / "gene_tpm.tsv", sep="\t", index_label="gene_name")
    return [
        f"--{name}={folder / file}"
        for name, file in (
            ("tracks", "tracks.csv"),
            ("expression", "gene_tpm.tsv"),
            ("genes", "genes.gtf.gz"),
        )
    ]


@pytest.mark.trial
@pytest.mark.usefixtures("worker_here")
@pytest.mark.parametrize("assembly", CALLED)
def test_each_command_names_the_next_up_to_the_report(
    tmp_path, monkeypatch, assembly, trial_size, program
):
    if assembly not in trial_size(["hg38"], CALLED):
        pytest.skip("in make trials")
    files = as_people_have_them(tmp_path, assembly)
    monkeypatch.chdir(tmp_path)
    command = ["python", "-m", "data_prep.doctor", *files, "--store=study.zarr"]
    said, ran = {}, []
    while command:
        assert command[:2] == ["python", "-m"]
        name, small = command[2], SMALL if command[2] == "experiments.train" else []
        done = program(*command[2:], *small)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
        ran.append(name.partition(".")[2])
        _, _, after = done.stdout.partition("next: ")
        command = shlex.split(after.partition("\n")[0])
    assert ran == ["doctor", "build_store", "train", "evaluate", "report"]
    assert f"assembly {assembly}, as the lengths of the tracks" in said["data_prep.doctor"]
    assert "unit of expression: TPM, as the table says" in said["data_prep.build_store"]
    assert "60 genes found by the names" in said["data_prep.build_store"]
    assert "TPM" in (tmp_path / "runs/study/report.html").read_text()
    predictions = pd.read_parquet(tmp_path / "runs/study/predictions.parquet")
    assert set(predictions.chrom) == {f"chr{i}" for i in range(1, 6)}
    done = program("experiments.verify", "--run=runs/study")
    assert done.returncode == 0, done.stdout
