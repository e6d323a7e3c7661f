"""Models and data sets that go together, and those that don't."""

import pytest
import torch

from ghn.errors import ConfigError, DataError, GhnError, ModelError
from ghn.finetune.choose import batches_of, make_task
from ghn.finetune.compare import compare
from ghn.tasks.image_classification import shift_and_mirror


@pytest.mark.parametrize(
    ("model", "kwargs", "size"),
    [
        ("timm:test_vit", {"patch_size": 8}, 32),
        ("timm:test_resnet", {"in_chans": 1}, 32),
        ("torchvision:mobilenet_v3_small", {}, 32),
        ("torchvision:googlenet", {"aux_logits": False}, 64),
        (
            "hf:vit",
            {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2},
            32,
        ),
    ],
)
def test_vision_models_of_every_zoo_get_classes_size_and_channels(tiny, model, kwargs, size):
    task = make_task(tiny(model=model, model_kwargs=kwargs, image_size=size))
    assert task.check() > 0


def test_language_models_get_the_vocabulary(tiny_text):
    task = make_task(tiny_text())
    task.check()
    assert task.build(0).config.vocab_size == 384
    assert task.build(0).config.use_cache is False


@pytest.mark.parametrize("length", [1, 8])
def test_sequences_may_be_as_short_as_the_model(tiny_text, length):
    kwargs = {**tiny_text().model_kwargs, "n_positions": length}
    assert make_task(tiny_text(sequence_length=length, model_kwargs=kwargs)).check() > 0


def test_a_factory_of_your_own(tiny, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(width=8):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 7))\n"
    )
    task = make_task(tiny(model=f"python:{file}:net"))
    with pytest.raises(DataError, match=r"shape \(2, 7\) for 2 images, but 'digits' has 10 classes"):
        task.check()


def test_wrong_number_of_classes_says_the_right_one(tiny):
    task = make_task(tiny(model_kwargs={"num_classes": 7}))
    with pytest.raises(DataError, match='"num_classes": 10'):
        task.check()


def test_image_size_that_a_model_cannot_take(tiny):
    with pytest.raises((ConfigError, ModelError), match=r"image_size|--image-size|img_size"):
        make_task(tiny(model="timm:vit_tiny_patch16_224", image_size=8)).check()


def test_the_model_chooses_the_data_and_the_data_the_model(tiny):
    assert make_task(tiny(model=None, dataset=None)).name == "image-classification"
    small = {"n_layer": 1, "n_embd": 32, "n_head": 2}
    by_model = make_task(tiny(model="hf:gpt2", model_kwargs=small, dataset=None))
    assert (by_model.name, by_model.dataset) == ("language-modeling", "python-stdlib")
    by_data = make_task(tiny(model=None, dataset="python-stdlib"))
    assert by_data.model == "hf:gpt2"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "timm:test_resnet", "dataset": "python-stdlib"}, "is a vision model"),
        ({"sequence_length": 8}, "--sequence-length has no meaning for 'digits', which holds images"),
        ({"tokenizer": "bytes"}, "--tokenizer has no meaning"),
        (
            {"model": None, "dataset": "python-stdlib", "image_size": 8},
            "--image-size has no meaning .* holds text",
        ),
        ({"model": "hf:gpt2"}, "no head for 'image-classification'"),
        ({"model": "hf:gpt2:AutoModelForCausalLM"}, "takes no plain batch of images"),
        (
            {"model": "torchvision:ssdlite320_mobilenet_v3_large"},
            "choose a classifier, for example --model timm",
        ),
        ({"model": "timm:test_resnett"}, "Did you mean"),
    ],
)
def test_what_does_not_go_together(tiny, values, message):
    with pytest.raises((ConfigError, ModelError), match=message):
        make_task(tiny(**values)).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_kwargs": {"vocab_size": 100}}, "vocabulary of 100, but tokenizer 'bytes' has 384"),
        (
            {"model_kwargs": {"n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}},
            "smaller --sequence-length",
        ),
        ({"model": "hf:t5:AutoModelForSeq2SeqLM", "model_kwargs": {}}, "is an encoder-decoder"),
        (
            {
                "model": "hf:bert:AutoModelForMaskedLM",
                "model_kwargs": {"num_hidden_layers": 1, "hidden_size": 24, "intermediate_size": 24},
            },
            "is not causal",
        ),
    ],
)
def test_language_models_that_do_not_fit(tiny_text, values, message):
    with pytest.raises((ConfigError, DataError), match=message):
        make_task(tiny_text(**values)).check()


def test_epochs_become_steps(tiny):
    config = tiny(steps=None, epochs=2.0, batch_size=100)
    task = make_task(config)
    assert batches_of(config, task) == (28, 100)  # 1,438 images: 14 whole batches an epoch


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augmentation_is_a_function_of_the_generator_and_keeps_what_it_is_given():
    images = torch.arange(2 * 1 * 16 * 16, dtype=torch.uint8).reshape(2, 1, 16, 16)
    before = images.clone()
    first, second = (shift_and_mirror(images, numbers(1), flips=True) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, shift_and_mirror(images, numbers(2), flips=True))
    assert torch.equal(images, before)
    assert first.shape == images.shape


def test_augmentation_shifts_by_an_eighth_at_most():
    images = torch.zeros(200, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 8, 8] = 1
    _, _, rows, columns = shift_and_mirror(images, numbers(0), flips=False).nonzero(as_tuple=True)
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [6, 7, 8, 9, 10]


REGRESSION = """
import torch
from torch import nn
from torch.nn import functional as F
from ghn.tasks import Task


class Split:
    in_memory = True

    def __len__(self):
        return 64

    def __getitems__(self, rows):
        points = torch.tensor(rows)[:, None] / 32 - 1
        return torch.cat([points, points**2], 1), points**3


class Cubes(Task):
    name, metric_name, arguments = "regression", "negative loss", {}
    train = evaluation = Split()

    def inputs(self, batch, device, augment=None):
        return (batch[0],), batch[1]

    def loss(self, output, targets):
        return F.mse_loss(output, targets), torch.zeros(())

    def metric(self, loss, accuracy):
        return -loss


class Rows(Cubes):
    def loss(self, output, targets):
        return (output - targets).square(), torch.zeros(())


class Broken(Cubes):
    def loss(self, output, targets):
        return output.logits, 0


def net(width=8):
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))
"""


@pytest.fixture
def regression(tiny, tmp_path, monkeypatch):
    """A task and a model in a file of the user's: makes configurations."""
    (tmp_path / "own.py").write_text(REGRESSION)
    monkeypatch.chdir(tmp_path)

    def make(name="Cubes", **overrides):
        return tiny(task=f"own.py:{name}", dataset=None, **{"model": "python:own.py:net", **overrides})

    return make


def test_a_task_of_ones_own_is_compared(regression):
    results = compare(regression(inits=("random", "base"), steps=30, lr=(3e-2,), seeds=(0, 1)))
    assert (results.task, results.dataset, results.budget["batch_size"]) == ("regression", "own.py:Cubes", 8)
    for run in results.runs:
        assert run.curve[-1].metric == -run.curve[-1].loss > run.curve[0].metric
    assert results.settings["task"] == "own.py:Cubes"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Cube"}, "has no 'Cube'. Did you mean 'Cubes'"),
        ({"name": "net"}, "makes Sequential; expected ghn.tasks"),
        ({"name": "Rows"}, r"makes a loss of shape \(2, 1\) .* expected a finite scalar"),
        ({"name": "Broken"}, r"'own.py:Broken' failed at .*own.py:\d+: "),
        ({"model": "timm:test_vit"}, "can't run on the inputs of 'own.py:Cubes'"),
        ({"image_size": 8}, "--image-size has no meaning for 'own.py:Cubes', which has data of its own"),
    ],
)
def test_a_task_of_ones_own_that_does_not_fit_is_named(regression, values, message):
    with pytest.raises(GhnError, match=message) as caught:
        make_task(regression(**values)).check()
    assert "\n" not in str(caught.value)
