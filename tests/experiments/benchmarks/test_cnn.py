"""The arithmetic of the comparison with Keras, without Keras."""

import json
import types

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.models.cnn import CnnConfig
from experiments.benchmarks import cnn as room

GENE_STEPS = 4 * 8 * 128  # runs, steps and genes a step of one measurement
FOUND = {
    "ratio_vs_keras": 2.0,
    "share_of_matmul_peak": round(GENE_STEPS / 2 * 177.5 / 1e6, 3),
    "gene_steps_per_s": {"ours": GENE_STEPS / 2, "keras": GENE_STEPS / 4},
    "matmul_gflops": 1000.0,
    "disturbed_rounds": 0,
}


@pytest.fixture
def measured(clock, monkeypatch):
    """Our epoch takes 2 s, that of Keras 4 s."""
    monkeypatch.setattr(room, "_our_epoch", lambda: clock.taking(2))
    monkeypatch.setattr(room, "keras_epochs", lambda: clock.taking(4))
    monkeypatch.setattr(room, "matmul_mflops", lambda: lambda: 1e6)


def test_rates_and_shares_are_of_what_was_trained(measured, capsys):
    room.print_cnn(3)
    assert json.loads(capsys.readouterr().out) == FOUND


def test_it_is_measured_again_with_huge_pages(measured, monkeypatch):
    monkeypatch.setattr(room, "require_peers", lambda *names: None)
    asked = []

    def run(command, **how):
        asked.append((command[-1], how["env"]["GLIBC_TUNABLES"]))
        return types.SimpleNamespace(stdout='what else it says\n{"ratio_vs_keras": 1.5}\n')

    monkeypatch.setattr(room.subprocess, "run", run)
    with_huge_pages = {"ratio_vs_keras": 1.5}
    assert room.cnn(3) == {"what": "cnn", **FOUND, "with_huge_pages": with_huge_pages}
    ((program, tunables),) = asked
    assert program.endswith("cnn.print_cnn(3)")
    assert tunables == "glibc.malloc.hugetlb=1"


def test_without_keras_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="no keras"):
        room.cnn(1)


@pytest.mark.peers
def test_one_model_at_a_time_trains_in_pytorch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    windows = random.standard_normal((16, 400, 1), np.float32)
    assert [row[-1] for row in room._table(CnnConfig())] == [1, 192, 256, 1536, 256, 8, 256]
    room.torch_epoch(CnnConfig(width=0.02), "float32", 8, windows, windows[:, 0, 0])()
    assert not torch.backends.cudnn.allow_tf32
