"""Study files: the commands that a file stands for, and files that make no sense."""

import pytest

from epi2expr_jax.errors import InputError
from experiments.cli.study_file import SHIPPED, find_study, read_study

TEXT = """
out = "mine"
[download]
sources = ["rpkm", "gencode_v10"]
[store]
tracks = "tracks.csv"
expression = "{out}/files/rpkm.gz"
[train]
cv = "chromosomes_5"
[train.cnn]
model = "cnn"
[train.near]
model = "chromoformer"
no_pcre = true
balance_contacts = false
[evaluate]
baselines = ["ridge", "linear"]
[[perturb]]
run = "cnn"
assay = "H3K4me3"
[[perturb]]
run = "cnn"
assay = "DNase"
factors = [0, 2]
[sweep]
windows = [2000, 6000]
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_a_file_is_commands_in_an_order_in_which_each_finds_what_it_needs(written, tmp_path):
    (tmp_path / "tracks.csv").write_text("cell,assay,path\n")
    study = read_study(written(TEXT))
    typed = {step.name: " ".join([step.module, *step.arguments]) for step in study.steps}
    assert typed == {
        "download": "data_prep.download --out=mine/files --sources=rpkm,gencode_v10",
        "store": "data_prep.build_store --store=mine/store.zarr --tracks=tracks.csv "
        "--expression=mine/files/rpkm.gz",
        "train cnn": "experiments.train --store=mine/store.zarr --run=mine/runs/cnn "
        "--cv=chromosomes_5 --model=cnn",
        "evaluate cnn": "experiments.evaluate --run=mine/runs/cnn --baselines=ridge,linear",
        "train near": "experiments.train --store=mine/store.zarr --run=mine/runs/near "
        "--cv=chromosomes_5 --model=chromoformer --no_pcre --nobalance_contacts",
        "evaluate near": "experiments.evaluate --run=mine/runs/near --baselines=ridge,linear",
        "perturb cnn": "experiments.perturb --run=mine/runs/cnn --assay=H3K4me3",
        "perturb cnn DNase_0,2": "experiments.perturb --run=mine/runs/cnn --assay=DNase "
        "--factors=0,2 --out=mine/runs/cnn/perturb_DNase_0,2",
        "sweep 1": "experiments.sweep --store=mine/store.zarr --run=mine/sweep --windows=2000,6000",
        "verify cnn": "experiments.verify --run=mine/runs/cnn",
        "verify near": "experiments.verify --run=mine/runs/near",
        "report cnn": "experiments.report --run=mine/runs/cnn --compare=mine/runs/near "
        "--sweep=mine/sweep",
    }
    done = set()
    for step in study.steps:
        assert done >= {*step.needs}, step
        done.add(step.name)
    steps = {step.name: step for step in study.steps}
    assert steps["store"].reads == ("tracks.csv",)
    assert {"verify near", "sweep 1", "perturb cnn"} <= {*steps["report cnn"].needs}
    assert steps["perturb cnn"].needs == ("evaluate cnn",)
    other = read_study(written(TEXT), "there")
    assert "--store=there/store.zarr" in other.steps[1].arguments


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("[evaluate]", "[evalute]"), "did you mean evaluate"),
        (('[[perturb]]\nrun = "cnn"', '[[perturb]]\nrun = "cn"'), "did you mean cnn"),
        (('[[perturb]]\nrun = "cnn"', "[[perturb]]"), "run = NAME says"),
        (('tracks = "tracks.csv"', ""), "name the track sheet"),
        (('tracks = "tracks.csv"', "tracks = 3"), r"\[store\]: found tracks = 3; expected a text"),
        (('tracks = "tracks.csv"', "tracks = ['a.csv', 'b.csv']"), "found tracks = .*a text"),
        (('tracks = "tracks.csv"', "tracks = true"), "found tracks = true; expected a text"),
        (('tracks = "tracks.csv"', 'tracks = " "'), "name the track sheet"),
        (("[download]", "[depth]\ntracks = 3\n[download]"), r"\[depth\]: found tracks = 3"),
        (('expression = "{out}/files/rpkm.gz"', ""), "what models learn to predict"),
        (('model = "cnn"', 'model = "cnn"\nrun = false'), r"\[train.cnn\]: found run = false"),
        (('[train.cnn]\nmodel = "cnn"\n[train.near]', "[train.cells]"), "did you mean|run = NAME"),
        (("[sweep]", "[sweep"), "correct the file"),
        (('out = "mine"', 'out = "mine"\ndepth = 3'), "make it a table"),
        (('out = "mine"', 'out = "mine"\nattribution = 3'), "make it a table"),
        (('out = "mine"', 'out = ""'), "name one"),
        (('out = "mine"', "out = 5"), "name one"),
        (('out = "mine"', 'out = "a,b"'), "name one"),
        (('tracks = "tracks.csv"', 'tracks = "t.csv"\nstore = "x"'), "out = says where"),
        (('model = "cnn"', 'model = "cnn"\nstore = "x"'), "out = says where"),
        (("[evaluate]", '[evaluate]\nrun = "x"'), "out = says where"),
        (('cv = "chromosomes_5"', 'run = "{out}/x"'), "name two"),
        (("[train.near]", '[train."../../x"]'), "another name"),
        (('run = "cnn"', 'run = ["cnn"]'), "did you mean cnn"),
        (("[download]", "[depth]"), "name the track sheet"),
        (
            ('model = "cnn"', 'model = "cnn"\nhelp = true'),
            r"\[train\], \[cnn\].*'help'.*take it out",
        ),
        (("[evaluate]", '[evaluate]\nflagfile = "/x"'), r"\[evaluate\].*'flagfile'.*take it out"),
        (("[evaluate]", '[evaluate]\n"--tracks" = "x"'), "'--tracks'.*take it out"),
        (("[evaluate]", '[evaluate]\n"" = 3'), "a key ''.*take it out"),
        (('run = "cnn"', 'run = "cnn"\nundefok = "x"'), r"\[perturb\].*'undefok'.*take it out"),
    ],
)
def test_what_makes_no_sense_is_named(written, change, remedy):
    assert change[0] in TEXT
    with pytest.raises(InputError, match=remedy):
        read_study(written(TEXT.replace(*change)))


def test_questions_have_places_of_their_own(written):
    """Also where flags other than their values differ; a byte order mark does not matter."""
    asked = '[[perturb]]\nrun = "cnn"\nassay = "Y"\n'
    text = TEXT + asked + "tracks = 3\n" + asked + "null = 3\n"
    steps = [step for step in read_study(written("\ufeff" + text)).steps if "Y" in step.name]
    assert [step.arguments[-1] for step in steps] == [
        "--out=mine/runs/cnn/perturb_Y_3", "--out=mine/runs/cnn/perturb_Y_3_2"]  # fmt: skip
    assert len({step.name for step in steps}) == 2


def test_files_that_any_flag_names_are_read(written, tmp_path):
    for name in ("tracks.csv", "mine.csv", "mine/files/rpkm.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    text = TEXT.replace("[evaluate]", '[evaluate]\ncovariates = "mine.csv"')
    steps = {step.name: step.reads for step in read_study(written(text)).steps}
    assert (steps["store"], steps["evaluate cnn"]) == (("tracks.csv",), ("mine.csv",))


def test_a_file_without_training_is_refused(written):
    with pytest.raises(InputError, match=r"\[train.NAME\] for each model"):
        read_study(written('[store]\ntracks = "x.csv"\nexpression = "y.csv"'))


def test_studies_that_ship_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_study("demo") == (SHIPPED / "demo.toml", tmp_path)
    with pytest.raises(InputError, match="did you mean demo"):
        find_study("dmo")
