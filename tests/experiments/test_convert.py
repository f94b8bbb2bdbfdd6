import errno
import functools
import hashlib
import os
import pathlib
import pickle
import runpy
import subprocess
import sys
import tarfile
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from data_prep.import_chromoformer import MARKS, ImportConfig, import_store
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import from_torch, to_torch
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.training import checkpoint
from experiments import convert as program
from experiments.convert import Published, export_run, read_checkpoint, write_run

GOLDEN_FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden"
MAKER = runpy.run_path(str(GOLDEN_FOLDER / "make_chromoformer_golden.py"))
FIELDS = MAKER["SMALL"] | {"assays": 2, "contacts": 3}
TOLD = {"contacts": 3, "window_bp": 40_000}
PUBLISHED = Published("E003", ("m2", "m1"), 1, TOLD)


def published_state(fields):
    config = ChromoformerConfig(**fields)
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape), nnx.split(model, nnx.Param)[1])
    shapes = {name: array.shape for name, array in to_torch(config, zeros).items()}
    return {name: MAKER["draw"](name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three genes of 2, 1 and 0 contacts, with two marks."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = [
        ("a", 50_000, "+", "chr1:300-5800;chr1:7000-7900", "2.5;1.5"),
        ("b", 70_000, "-", "chr1:7000-7900", "4"),
        ("c", 90_000, "+", "", ""),
    ]
    frame = pd.DataFrame(rows, columns=["gene_id", "start", "strand", "neighbors", "scores"])
    frame["end"] = frame.start + 1
    frame = frame.assign(chrom="chr1", eid="E003", expression=[0.5, 2.0, 9.0], label=[0, 1, 1])
    frame.to_csv(folder / "meta.csv", index=False)
    (folder / "toy.chrom.sizes").write_text("chr1\t200000\n")
    random = np.random.RandomState(0)
    windows = [(start - 20_000, start + 20_000) for start in frame.start]
    for start, end in [*windows, (300, 5800), (7000, 7900)]:
        depth = random.randint(0, 30, (2, end - start)).astype(np.float16)
        np.save(folder / f"chr1:{start}-{end}.npy", depth)
    return import_store(
        ImportConfig(
            meta=str(folder / "meta.csv"),
            npy_dir=str(folder),
            store=str(folder / "store.zarr"),
            assays=("m1", "m2"),
            assembly=str(folder / "toy.chrom.sizes"),
        )
    )


@pytest.fixture
def source(tmp_path):
    """Stands in for the file that weights were read from."""
    path = tmp_path / "E003_fold1.pt"
    path.write_bytes(b"weights")
    return path


def test_published_weights_predict_like_a_trained_run(store, source, tmp_path):
    state = published_state(FIELDS)
    card = write_run(state, source, PUBLISHED, tmp_path / "run")
    assert card["converted"]["file"] == "E003_fold1.pt"
    assert card["converted"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    ensemble = load(tmp_path / "run")
    assert [run.label for run in ensemble.runs] == ["m2+m1"]
    found = ensemble.predict(store, include_seen=True)
    assert (found.fold.item(), found.cell.item()) == ("group1", "E003")

    # The same by hand: m2 first, ln(depth + 1), and log2(RPKM + 1) as it comes.
    config, params = from_torch(state, "x", **TOLD)
    data = load_dataset(store, config, ["E003"], ["m2", "m1"], InputConfig("log1p"))
    plan = BatchPlan.of(3, 3, balanced=False)
    batch = data.signal("E003", ["m2", "m1"]).gather(jnp.arange(3), plan)
    graph = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param)[0]

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def outputs(params, batch):
        return nnx.merge(graph, params, copy=True).outputs(batch)

    np.testing.assert_allclose(found.values.T, outputs(params, batch), atol=1e-6)


def test_a_classifier_becomes_one(source, tmp_path):
    state = published_state(FIELDS | {"task": "classification"})
    card = write_run(state, source, PUBLISHED, tmp_path / "run")
    assert card["target"] == "label"
    member = load(tmp_path / "run").members[0]
    assert member.model_config.task == "classification"
    assert member.scales[0].unstandardise(np.zeros(1)) == [0.5]


def test_no_gene_is_blind_to_published_weights(store, source, tmp_path):
    write_run(published_state(FIELDS), source, PUBLISHED, tmp_path / "run")
    ensemble = load(tmp_path / "run")
    fold = ensemble.folds["group1"]
    assert fold.validation == ("chr1", "chr5", "chr6", "chr8", "chr14", "chrY")
    assert (len(fold.train), fold.test) == (18, ())
    with pytest.raises(InputError, match="every model saw in training or validation"):
        ensemble.predict(store)
    with pytest.raises(InputError, match="without a single test chromosome"):
        evaluate(tmp_path / "run", str(store.path))


def test_an_unknown_fold_may_have_seen_everything():
    fold = Published("E003", ("m1",)).split
    assert (fold.name, len(fold.train), fold.validation, fold.test) == ("unknown", 24, (), ())


def test_what_cannot_become_a_run_is_refused(source, tmp_path):
    state = published_state(FIELDS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    three = Published("E003", ("m1", "m2", "m3"), 1, TOLD)
    twice = Published("E003", ("m1", "m1"), 1, TOLD)
    for weights, published, out, message in (
        (state, three, "new", "the 2 different marks that E003_fold1.pt reads"),
        (state, twice, "new", "found m1, m1"),
        (state, PUBLISHED, "taken", "an empty or new directory"),
        ({"embed.500.extra": np.zeros(1)} | state, PUBLISHED, "new", "pt: embed.500.extra"),
    ):
        with pytest.raises(InputError, match=message):
            write_run(weights, source, published, tmp_path / out)
    assert not (tmp_path / "new").exists()


def test_what_a_full_disk_refused_can_be_written_again(source, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(checkpoint, "write_card", refuse)
        with pytest.raises(OSError, match="No space left"):
            write_run(published_state(FIELDS), source, PUBLISHED, tmp_path / "run")
    assert not any((tmp_path / "run").iterdir())
    write_run(published_state(FIELDS), source, PUBLISHED, tmp_path / "run")
    assert load(tmp_path / "run").runs


def test_without_pytorch_the_extra_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"epi2expr_jax\[convert\]"):
        read_checkpoint(source)


@pytest.fixture
def convert(program):
    return functools.partial(program, "experiments.convert")


def test_program_asks_for_one_direction(tmp_path):
    command = [sys.executable, "-m", "experiments.convert", f"--out={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "--checkpoint to import, or --run to export" in done.stderr) == (2, 1)


# -- With PyTorch ------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def tensors(torch, state):
    return {name: torch.tensor(array) for name, array in state.items()}


@pytest.mark.peers
def test_a_checkpoint_as_it_is_published(torch, store, tmp_path, convert):
    """Optimiser, epoch and NumPy scores lie next to the weights; they are not looked at."""
    state = published_state(FIELDS)
    path = tmp_path / "E003.pt"
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    beside = {
        "optimizer": optimiser.state_dict(),
        "epoch": 9,
        "last_val_r2": np.float64(62.2),
        "val_score": np.ones(3, np.float32),
        "val_label": np.arange(3),
        "last_val_loss": torch.tensor(0.1),
    }
    torch.save({"net": tensors(torch, state), **beside}, path)
    read = read_checkpoint(path)
    assert [*read] == [*state]
    for name, array in state.items():
        np.testing.assert_array_equal(read[name], array)
    for name, content in (
        ("bare", tensors(torch, state)),
        ("model", {"model_state_dict": tensors(torch, state), "epoch": 3}),
        ("lightning", {"state_dict": tensors(torch, state), "hyper_parameters": {"lr": 1e-3},
                       "pytorch-lightning_version": "2.4.0", "callbacks": {}}),
        ("nested", {"model": {"state_dict": tensors(torch, state)}}),
    ):  # fmt: skip
        torch.save(content, tmp_path / f"{name}.pt")
        assert [*read_checkpoint(tmp_path / f"{name}.pt")] == [*state]

    out = tmp_path / "run"
    done = convert(f"--checkpoint={path}", f"--out={out}", "--cell=E003", "--fold=1",
                   "--assays=m2,m1", "--contacts=3")  # fmt: skip
    assert "watched chr1, chr5, chr6, chr8, chr14, chrY" in done.stdout, done.stderr
    assert load(out).predict(store, include_seen=True).shape == (1, 3)
    again = convert(f"--run={out}", f"--out={tmp_path / 'back.pt'}")
    assert "n_feats=2, d_emb=16, binsizes=[500], i_max=3" in again.stdout, again.stderr
    back = read_checkpoint(tmp_path / "back.pt")
    for name, array in state.items():
        if "w_bias" not in name and ".ln." not in name and "gamma" not in name:
            np.testing.assert_array_equal(back[name], array, err_msg=name)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.peers
@pytest.mark.parametrize("key", ["net", "epoch"])
def test_a_pickle_that_calls_code_is_refused(torch, tmp_path, key, convert):
    target = tmp_path / "made-by-the-checkpoint"
    content = {"net": {}, key: Harmful(target)}
    torch.save(content, tmp_path / "zip.pt")
    torch.save(content, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "legacy.pt"):
        with pytest.raises(InputError, match=r"a pickle that names \w+\.mkdir"):
            read_checkpoint(tmp_path / name)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError):
        read_checkpoint(tmp_path / "plain.pt")
    assert not target.exists()
    done = convert(f"--checkpoint={tmp_path / 'zip.pt'}", f"--out={tmp_path / 'run'}",
                   "--cell=E003", "--assays=m1")  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert not target.exists()


@pytest.mark.peers
def test_whole_models_are_told_how_to_save_their_weights(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"names torch\.nn\.modules\.linear\.Linear: a whole") as e:
        read_checkpoint(tmp_path / "model.pt")
    assert "torch.save(model.state_dict(), FILE)" in e.value.problems[0].remedy
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), tmp_path / "script.pt")
    with pytest.raises(InputError, match="a TorchScript archive"):
        read_checkpoint(tmp_path / "script.pt")


@pytest.mark.peers
def test_what_is_no_checkpoint_is_refused(torch, tmp_path, convert):
    torch.save({"net": {"a": torch.zeros(2), "b": 3}}, tmp_path / "mixed.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"net": {"a": np.ones(2)}}, tmp_path / "numpy.pt")
    torch.save({"a": torch.ones(2, dtype=torch.complex64)}, tmp_path / "complex.pt")
    torch.save({"a": torch.ones(2, 2).to_sparse()}, tmp_path / "sparse.pt")
    whole = tmp_path / "list.pt"
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").touch()
    for name, message in (
        ("mixed.pt", "mixed.pt: b: found int; expected a dense tensor"),
        ("numpy.pt", "numpy.pt: a: found NumPy values"),
        ("complex.pt", "complex.pt: a: found values torch.complex64"),
        ("sparse.pt", "sparse.pt: a: found values torch.float32, torch.sparse"),
        ("list.pt", "found a list"),
        ("cut.pt", "or a damaged one"),
        ("text.pt", "or a damaged one"),
        ("empty.pt", "or a damaged one"),
        ("absent.pt", "No such file"),
        (".", "Is a directory"),
    ):
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / name)
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.pt")
    done = convert(f"--checkpoint={tmp_path / 'other.pt'}", f"--out={tmp_path / 'run'}",
                   "--cell=E003", "--assays=m1")  # fmt: skip
    assert done.returncode == 2
    assert "keys that begin with conv1.weight" in done.stderr


@pytest.mark.peers
def test_one_of_several_runs_is_exported_on_the_targets_own_scale(torch, source, tmp_path):
    """As trained: on a standardised target, with other runs."""
    state = published_state(FIELDS)
    card = write_run(state, source, PUBLISHED, tmp_path / "run")
    population = card["populations"][0]
    weights = load(tmp_path / "run").members[0].weights
    first = population["runs"][0]
    scale = first["target_scale"] | {"mean": 2.0, "deviation": 3.0}
    second = first | {"seed": 1, "target_scale": scale}
    population["runs"] = [first, second]
    twice = jax.tree.map(lambda x: np.concatenate([x, x + 1]), weights)
    checkpoint.save(tmp_path / "run" / population["weights"], twice)
    path = tmp_path / "run" / population["weights"]
    population["weights_sha256"] = checkpoint.files_sha256(path)
    checkpoint.write_card(tmp_path / "run", card)
    runs = load(tmp_path / "run").runs

    out = tmp_path / "new" / "second.pt"
    with pytest.raises(InputError, match=f"nothing, for 2 runs; expected one of {runs[0].run_id}"):
        export_run(tmp_path / "run", None, out)
    with pytest.raises(InputError, match="nobody"):
        export_run(tmp_path / "run", "nobody", out)
    export_run(tmp_path / "run", runs[1].run_id, out)
    found = read_checkpoint(out)
    weight, bias = (state[f"fc_head.2.{part}"] + 1 for part in ("weight", "bias"))
    np.testing.assert_allclose(found["fc_head.2.weight"], weight * 3, rtol=1e-6)
    np.testing.assert_allclose(found["fc_head.2.bias"], bias * 3 + 2, rtol=1e-6)
    np.testing.assert_array_equal(found["fc_head.0.weight"], state["fc_head.0.weight"] + 1)
    with pytest.raises(InputError, match="a new one"):
        export_run(tmp_path / "run", runs[1].run_id, out)


@pytest.mark.peers
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_demo_predicts_as_the_package_does(torch, shared_data, tmp_path, task, convert):
    """100 real genes: the package's own loader and network, against import and conversion."""
    data = pytest.importorskip("chromoformer.data")
    demo = shared_data / "chromoformer_demo"
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    arrays = next(tmp_path.glob("**/*.npy")).parent
    store = import_store(
        ImportConfig(
            meta=str(demo / "demo_meta.csv"),
            npy_dir=str(arrays),
            store=str(tmp_path / "demo.zarr"),
        )
    )
    net = MAKER["network"](MAKER["PUBLISHED"] | {"task": task})
    MAKER["load_drawn"](net)
    torch.save({"net": net.state_dict()}, tmp_path / "net.pt")
    done = convert(f"--checkpoint={tmp_path / 'net.pt'}", f"--out={tmp_path / 'run'}",
                   "--cell=E003", "--fold=1", f"--assays={','.join(MARKS)}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "run").predict(store, include_seen=True, scale="raw")
    assert found.shape == (1, 100)

    genes = found.gene.values.tolist()
    dataset = data.ChromoformerDataset(str(demo / "demo_meta.csv"), str(arrays), genes)
    expected = []
    with torch.no_grad(), MAKER["without_gpu"]():
        for batch in torch.utils.data.DataLoader(dataset, batch_size=10):
            batch.pop("label")
            expected.append(net(*batch.values()))
    expected = torch.cat(expected)
    if task == "classification":
        expected = expected.softmax(1)[:, 1:]
    np.testing.assert_allclose(found[0], expected[:, 0], rtol=0, atol=1e-5)
    assert np.std(found) > 1e-3


@pytest.mark.parametrize(
    ("direction", "without_effect"),
    [
        ("--checkpoint=a.pt", ["--run_id=0123456789ab"]),
        ("--run=run", ["--assays=m1", "--cell=E003", "--fold=1", "--contacts=3"]),
        ("--run=run", ["--window_bp=40000", "--resolutions=2000"]),
    ],
)
def test_flags_of_the_other_direction_are_refused(parse_flags, direction, without_effect):
    parse_flags([program.define_flags], direction, "--out=out", *without_effect)
    with pytest.raises(InputError) as caught:
        program.main()
    found = [problem.where for problem in caught.value.problems]
    assert found == [text.partition("=")[0] for text in without_effect]
