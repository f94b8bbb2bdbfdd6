"""What may be asked for, and the published training of each model."""

import dataclasses
import json

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.study.request import TrainRequest, default_schedule, published
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.schedules import PlateauConfig


def test_each_model_has_its_published_training():
    assert default_schedule("chromoformer") == "decay"
    assert default_schedule("cnn") == "plateau"
    decay = published("chromoformer")
    assert (decay.epochs, decay.learning_rate, decay.decay) == (10, 3e-5, 0.87)
    assert decay.plateau is decay.early_stop is None
    other = published("chromoformer", "plateau", epochs=3)
    assert (other.epochs, other.learning_rate, other.decay) == (3, 1e-3, 1.0)
    assert other.plateau == PlateauConfig()
    assert published("cnn", "decay").decay == 0.87
    with pytest.raises(InputError, match="plateau or decay"):
        published("cnn", "cosine")


@pytest.mark.parametrize("model", ["cnn", "promoter_cnn", "chromoformer"])
def test_a_request_trains_as_published_unless_it_says_otherwise(model):
    assert TrainRequest("some.zarr", model=model).train_config == published(model)
    own = TrainConfig()
    assert TrainRequest("some.zarr", model=model, train_config=own).train_config is own


def test_a_card_keeps_the_stores_name_alone():
    moved = TrainRequest("elsewhere/some.zarr/").as_json()
    assert moved == TrainRequest("data/some.zarr").as_json()
    assert moved["store"] == "some.zarr"


def test_a_card_read_back_is_the_request():
    """Whatever sequences a program gives: an interrupted run must know its own request again."""
    request = TrainRequest("some.zarr", model="chromoformer", model_options={"resolutions": (500,)})
    assert json.loads(json.dumps(request.as_json())) == request.as_json()


def test_requests_from_before_a_choice_are_those_of_its_default():
    """A run of an older version is resumed, not refused, by the same command."""
    fields = TrainRequest("some.zarr", model="chromoformer").as_json()
    assert not {"start_from", "test_genes", "gene_groups"} & fields.keys()
    assert "shuffle_regions" not in fields["input_config"]
    shuffled = TrainRequest("some.zarr", input_config=InputConfig(shuffle_regions=True))
    assert shuffled.as_json()["input_config"]["shuffle_regions"]


def test_nonsense_is_named_together():
    labels = dataclasses.replace(published("cnn"), task="classification")
    with pytest.raises(InputError) as caught:
        TrainRequest(
            "some.zarr", model_options={"widht": 2}, train_config=labels, seeds=0, train_share=1.5
        )
    found = [problem.where for problem in caught.value.problems]
    assert found == ["widht", "--target", "--seeds", "--train_share"]
    assert "did you mean width?" in str(caught.value)
    with pytest.raises(InputError, match=r"did you mean promoter_cnn\?"):
        TrainRequest("some.zarr", model="promotor_cnn")
    with pytest.raises(InputError, match="label for classification alone"):
        TrainRequest("some.zarr", target="label")
