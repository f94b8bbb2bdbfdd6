import functools
import pathlib
import re
import runpy

import jax
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.errors import InputError
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import from_torch, to_torch

GOLDEN_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "golden"
MAKER = runpy.run_path(str(GOLDEN_FOLDER / "make_chromoformer_golden.py"))
TOLD = {"contacts": 4, "window_bp": 9000}
FIELDS = MAKER["SMALL"] | {"assays": 3, "resolutions": (2000, 500), **TOLD}
CONFIG = ChromoformerConfig(**FIELDS)
UNREAD = re.compile(r"\.w_bias\.|^pairwise_interaction\.\d+\.ln\.|^[ep].*\.gamma_f$")


def fresh(config):
    params = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param)[1]
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)


@functools.cache
def shapes():
    """Of all published arrays, in PyTorch's order."""
    return {name: array.shape for name, array in to_torch(CONFIG, fresh(CONFIG)).items()}


@pytest.fixture
def state():
    """Weights in the newest of the published layouts."""
    return {name: MAKER["draw"](name, shape) for name, shape in shapes().items()}


def renamed(state, *patterns):
    new = {}
    for name, array in state.items():
        for pattern, other in patterns:
            name = re.sub(pattern, other, name)
        new[name] = array
    return new


def second_layout(state):
    return renamed(
        state,
        (r"^embed\.(\d+)", r"embed\1"),
        (r"^pairwise_interaction\.(\d+)", r"pw_int\1"),
        (r"^regulation\.(\d+)", r"reg\1"),
    )


def oldest_layout(state):
    return renamed(
        state,
        (r"^embed\.(\d+)", r"embed\1_a"),
        (r"^pairwise_interaction\.(\d+)", r"embed\1_b"),
        (r"^regulation\.(\d+)\.transformer", r"transformer\1"),
        (r"lin_proj_pcre", r"lin_proj_c"),
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def problems_of(state, **options):
    with pytest.raises(InputError) as caught:
        from_torch(state, "file.pt", **(options or TOLD))
    return [f"{p.where}: {p.found}; {p.expected}" for p in caught.value.problems]


def test_there_and_back_is_the_identity(state):
    config, params = from_torch(state, "file.pt", **TOLD)
    assert config == CONFIG
    back = to_torch(config, params)
    assert [*back][-1] == "fc_head.2.bias"
    assert {name: array.shape for name, array in back.items()} == shapes()
    for name, array in back.items():
        assert array.dtype == np.float32
        if not UNREAD.search(name):
            np.testing.assert_array_equal(array, state[name], err_msg=name)
    assert_same(from_torch(back, "back.pt", **TOLD)[1], params)


def test_what_nothing_reads_is_as_the_package_starts_it():
    exported = to_torch(CONFIG, fresh(CONFIG))
    unread = {name: array for name, array in exported.items() if UNREAD.search(name)}
    assert len(unread) == 2 * (2 + 3 + 1)
    for name, array in unread.items():
        starts_at_one = name.endswith(("gamma_f", "ln.weight"))
        assert (array == (1 if starts_at_one else 0)).all(), name


@pytest.mark.parametrize("older", [second_layout, oldest_layout])
def test_older_layouts_are_the_same_weights(state, older):
    names = set(older(state))
    assert len(names & set(state)) == 4  # only the head is called the same
    config, params = from_torch(older(state), "file.pt", **TOLD)
    assert config == CONFIG
    assert_same(params, from_torch(state, "file.pt", **TOLD)[1])


@pytest.mark.parametrize("before", ["module.", "net.", "model.module._orig_mod."])
def test_what_wrappers_put_before_names_does_not_count(state, before):
    wrapped = {f"{before}{name}": array for name, array in state.items()}
    assert_same(from_torch(wrapped, "a.pt", **TOLD), from_torch(state, "a.pt", **TOLD))
    compiled = {re.sub(r"^(embed)\.", r"\1._orig_mod.", name): a for name, a in state.items()}
    assert_same(from_torch(compiled, "a.pt", **TOLD), from_torch(state, "a.pt", **TOLD))
    with pytest.raises(InputError, match=r"loss\.weight: found .*nothing of that name"):
        from_torch({"loss.weight": np.ones(2), **wrapped}, "a.pt", **TOLD)


def test_names_of_the_older_layouts():
    """Some of them in full, as published files have them."""
    oldest = set(oldest_layout(shapes()))
    assert {
        "embed2000_a.lin_proj.weight",
        "embed500_b.lin_proj_c.weight",
        "embed500_b.transformer.layers.0.self_att.c_att.weight",
        "transformer2000.layers.0.self_att.gamma_f",
    } <= oldest
    assert {
        "embed2000.transformer.layers.0.ff.l1.weight",
        "pw_int500.lin_proj_pcre.weight",
        "reg500.transformer.layers.0.self_att.att.weight",
    } <= set(second_layout(shapes()))


def test_everything_wrong_is_listed_together(state):
    del state["embed.500.lin_proj.weight"]
    del state["regulation.2000.transformer.layers.0.ff.l2.bias"]
    state["regulation.2000.transformer.layers.0.ff.l3.bias"] = np.zeros(16)
    state["embed.2000.w_bias.weight"] = np.zeros(3)
    state["fc_head.0.bias"] = np.full(10, np.nan)
    state["pairwise_interaction.500.lin_proj_p.weight"] = np.zeros((16, 3))
    state["fc_head.2.bias"] = state.pop("fc_head.2.bias")
    assert problems_of(state) == [
        "file.pt: embed.2000.w_bias.weight: (3,); nothing of that name",
        "file.pt: embed.500.lin_proj.weight: no such key; (16, 3)",
        "file.pt: pairwise_interaction.500.lin_proj_p.weight: (16, 3); (16, 16)",
        "file.pt: regulation.2000.transformer.layers.0.ff.l2.bias: no such key; (16,)",
        "file.pt: regulation.2000.transformer.layers.0.ff.l3.bias: (16,); nothing of that name",
        "file.pt: fc_head.0.bias: values that are not finite; finite weights",
    ]


@pytest.mark.parametrize(
    ("name", "array", "messages"),
    [
        ("embed2000.lin_proj.weight", np.zeros((16, 3)), ["lin_proj.weight: 2 keys that mean"]),
        ("fc_head.0.bias", np.array(["a"] * 10), ["fc_head.0.bias: values of type <U1"]),
        ("fc_head.0.bias", np.array([None]), ["fc_head.0.bias: values of type object"]),
        # These tell a size: without them published sizes are expected.
        ("fc_head.0.weight", np.zeros(3), ["0.weight: (3,); (3, 32)", "0.bias: (10,); (3,)"]),
        ("embed.2000.lin_proj.weight", None, ["lin_proj.weight: no such key; (128, 1)"]),
        (
            "embed.2000.transformer.layers.0.self_att.gamma_f",
            None,
            ["embed.2000.transformer.layers.0.self_att.gamma_f: no such key; (2,)"],
        ),
    ],
)
def test_what_tells_the_sizes_is_listed_with_the_rest(state, name, array, messages):
    state = {name: array} | state | {name: array}
    if array is None:
        del state[name]
    problems = problems_of(state)
    for message in messages:
        assert any(message in problem for problem in problems), problems


def test_another_networks_checkpoint_shows_its_own_keys():
    other = {"conv1.weight": np.zeros(3), "conv1.bias": np.zeros(3)}
    with pytest.raises(InputError, match=r"begin with conv1.weight, conv1.bias") as caught:
        from_torch(other, "file.pt")
    assert len(caught.value.problems) == 1
    with pytest.raises(InputError, match="begin with nothing"):
        from_torch({}, "file.pt")


def test_the_order_of_resolutions_is_told_or_asked_for(state):
    """The head reads them side by side; names sorted by a tool would swap 2000 and 500."""
    head_first = dict(sorted(state.items(), key=lambda item: not item[0].startswith("fc_head")))
    assert_same(from_torch(head_first, "x", **TOLD)[1], from_torch(state, "x", **TOLD)[1])
    by_name = dict(sorted(state.items()))
    assert "another order" in problems_of(by_name)[0]
    config, params = from_torch(by_name, "x", **TOLD, resolutions=(2000, 500))
    assert config == CONFIG
    assert_same(params, from_torch(state, "x", **TOLD)[1])


def test_an_exported_model_predicts_the_targets_own_scale(state):
    config, params = from_torch(state, "x", **TOLD)
    exported = to_torch(config, params, mean=2.5, deviation=0.5)
    hidden = np.random.RandomState(0).normal(size=10)

    def last(weights):
        return weights["fc_head.2.weight"] @ hidden + weights["fc_head.2.bias"]

    np.testing.assert_allclose(last(exported), last(state) * 0.5 + 2.5, rtol=1e-5)
    assert exported["fc_head.2.weight"].dtype == np.float32
    np.testing.assert_array_equal(exported["fc_head.0.weight"], state["fc_head.0.weight"])


def test_a_model_of_promoters_alone_has_no_published_form():
    config = ChromoformerConfig(**FIELDS | {"contacts": 0})
    with pytest.raises(InputError, match="promoters alone"):
        to_torch(config, fresh(config))


def test_several_outputs_make_a_classifier(state):
    state["fc_head.2.weight"], state["fc_head.2.bias"] = np.zeros((2, 10)), np.zeros(2)
    config, _ = from_torch(state, "x", **TOLD)
    assert config.task == "classification"


@pytest.mark.peers
@pytest.mark.parametrize("title", ["published", "two_embedding_layers", "classification"])
def test_the_package_loads_what_is_exported(title):
    pytest.importorskip("chromoformer")
    torch = pytest.importorskip("torch")
    fields = MAKER["CONFIGS"][title]
    net = MAKER["network"](fields)
    state = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    config, params = from_torch(state, title, contacts=8)
    assert config == ChromoformerConfig(**fields)
    exported = {name: torch.tensor(array) for name, array in to_torch(config, params).items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    net.load_state_dict(exported, strict=True)
    for name, tensor in net.state_dict().items():
        if not UNREAD.search(name):
            np.testing.assert_array_equal(tensor.numpy(), state[name], err_msg=name)
