"""Costs of small programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks.accelerators.hlo import Program

# A loop whose turns are data: a slice of a track [1000, 4], a product, a sum, written in place.
LOOP = """HloModule example

%taking (param_0: f32[1000,4], param_1: s32[]) -> f32[8,4] {
  %param_0 = f32[1000,4]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  ROOT %slice = f32[8,4]{1,0} dynamic-slice(%param_0, %param_1), dynamic_slice_sizes={8,4}
}

%body (arg: (s32[], f32[1000,4], (f32[8,16], f32[4,16]))) -> (s32[], f32[1000,4]) {
  %arg = (s32[], f32[1000,4]{1,0}, (f32[8,16]{1,0:T(8,128)}, /*i=1*/f32[4,16]{1,0})) parameter(0)
  %turn = s32[] get-tuple-element(%arg), index=0
  %some = f32[8,4]{1,0} fusion(%arg#1, %turn), kind=kLoop, calls=%taking
  %out = f32[8,16]{1,0} dot(%some, %arg#2#1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %whole = f32[8,16]{1,0} PRODUCT
  %sum = f32[8,16]{1,0} add(%out, %arg#2#0)
  ROOT %next = (s32[], f32[1000,4]{1,0}) tuple(%turn, %arg#1)
}

%condition (arg: (s32[], f32[1000,4])) -> pred[] {
  %arg = (s32[], f32[1000,4]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (start: (s32[], f32[1000,4])) -> (s32[], f32[1000,4]) {
  %start = (s32[], f32[1000,4]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[1000,4]{1,0}) while(%start), condition=%condition, body=%body
}
"""
BLAS = (
    'custom-call(%some, %arg#2#1), custom_call_target="__cublas$gemm", backend_config={'
    '"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
)
TPU = "convolution(%some, %arg#2#1), dim_labels=bf_io->bf"


@pytest.mark.parametrize("product", [BLAS, TPU])
def test_a_turn_of_a_loop(product):
    (turn,) = Program(LOOP.replace("PRODUCT", product)).loops()
    assert turn.count == 4
    assert turn.flop == 2 * (2 * 8 * 4 * 16)
    sliced = 4 * (8 * 4 + 8 * 4 + 1)  # of the track only what is taken, and where
    multiplied = 4 * (8 * 4 + 4 * 16 + 8 * 16)
    added = 4 * 3 * 8 * 16
    assert turn.bytes == sliced + 2 * multiplied + added
    assert turn.seconds(1e3, 1e30, 0) == pytest.approx(turn.bytes / 1e3)
    assert turn.seconds(1e30, 1e3, 0) == pytest.approx(turn.flop / 1e3)
    assert turn.seconds(1e30, 1e30, 2e-6) == pytest.approx(8e-6)


def test_batches_of_products_as_a_tpu_writes_them():
    window = "window={size=3 stride=2 pad=0_0 lhs_dilate=3}, dim_labels=0bf_0io->0bf"
    text = f"""
ENTRY %main (a: f32[3,8,4], b: f32[3,4,16]) -> f32[3,8,16] {{
  %a = f32[3,8,4]{{2,1,0}} parameter(0)
  %b = f32[3,4,16]{{2,1,0}} parameter(1)
  ROOT %out = f32[3,8,16]{{2,1,0}} convolution(%a, %b), {window}
}}
"""
    program = Program(text)
    assert program.cost(program.entry).flop == 3 * (2 * 8 * 4 * 16)


def test_a_program_that_xla_compiled_here():
    def steps(turns, weights):
        def step(_, x):
            for _ in range(3):
                x = jnp.tanh(x @ weights)
            return x

        return jax.lax.fori_loop(0, turns, step, jnp.ones((4, 8)))

    text = jax.jit(steps).lower(5, jnp.ones((8, 8))).compile().as_text()
    (turn,) = Program(text).loops()
    assert turn.flop == 3 * (2 * 4 * 8 * 8)
    assert turn.bytes > 3 * 4 * (4 * 8 + 8 * 8)
