"""Figures of a program that is compiled for a device, and what is said where it cannot be."""

import pytest

from epi2expr_jax.errors import InputError
from experiments.benchmarks.accelerators import compiled


def test_figures_of_a_step(monkeypatch):
    """One product of 2 GFLOP a step, as if an H100's program had been read."""
    text = """
%body (arg: (s32[], bf16[1000,1000])) -> (s32[], bf16[1000,1000]) {
  %arg = (s32[], bf16[1000,1000]{1,0}) parameter(0)
  %out = bf16[1000,1000]{1,0} dot(%arg#1, %arg#1), lhs_contracting_dims={1}
  ROOT %next = (s32[], bf16[1000,1000]{1,0}) tuple(%arg#0, %out)
}

ENTRY %main (start: (s32[], bf16[1000,1000])) -> (s32[], bf16[1000,1000]) {
  %start = (s32[], bf16[1000,1000]{1,0}) parameter(0)
  ROOT %loop = (s32[], bf16[1000,1000]{1,0}) while(%start), condition=%condition, body=%body
}
"""

    def start(folder, name, program):
        assert (name, program[:3]) == ("h100", ("cnn", 2, "bfloat16"))
        (folder / "program.txt").write_text(text)
        (folder / "temporaries").write_text("3000000")
        return 1.25

    monkeypatch.setattr(compiled, "_start", start)
    found = compiled.figures("h100", "cnn", 2, "bfloat16")
    assert found["kernels_a_step"] == 1
    assert found["mb_a_gene"] == round(6 / 256, 2)
    assert found["mflop_a_gene"] == round(2000 / 256, 1)
    assert found["temporaries_mb_a_lane"] == 1.5
    assert found["gene_steps_per_s"] == round(256 / 5e-6)  # products: 2 GFLOP at 400 TFLOP/s
    assert found["study_minutes"] == round(660 * 40 * 12_700 / (256 / 5e-6) / 60, 1)


def test_where_nothing_compiles_for_it_it_says_what_to_install():
    with pytest.raises(InputError, match=r"--target=v5e: .*pip install jax libtpu"):
        compiled.figures("v5e", "cnn", 1, "float32", 256, 128)


def test_of_the_real_program_on_this_platform(monkeypatch):
    """Compiled in this process, for the CPU: products of forward, backward and of nothing else."""
    monkeypatch.setitem(compiled._BATCH, "promoter_cnn", 16)

    def start(folder, name, program):
        compiled.write(str(folder), name, program)
        return 0.0

    monkeypatch.setattr(compiled, "_start", start)
    found = compiled.figures("cpu", "promoter_cnn", 1, "float32", 64, 48)
    assert found["mflop_a_gene"] == pytest.approx(72, abs=1)
    assert "gene_steps_per_s" not in found
