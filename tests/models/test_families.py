"""A model type whose inputs differ needs one entry, and the entry is all that it needs."""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ghn.models import example_calls, example_inputs
from ghn.models.hf_families import FAMILIES, Family, multimodal, sound, text, vision
from ghn.tracing.trace import trace


class ClipsConfig(PreTrainedConfig):
    model_type = "clips"
    image_size = 8
    num_frames = 3
    num_channels = 1


class Clips(PreTrainedModel):
    """Frames before channels, a volume for each clip, and a second branch that only captions take."""

    config_class = ClipsConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ClipsConfig) -> None:
        super().__init__(config)
        self.frames, self.volume, self.captions = nn.Linear(64, 4), nn.Linear(1, 4), nn.Linear(5, 4)

    def forward(self, pixel_values, volumes=None, captions=None):
        seen = self.frames(pixel_values.flatten(2)).mean(1) + self.volume(volumes)
        return seen if captions is None else seen + self.captions(captions)


ENTRY = Family(
    layout="btchw",
    arguments=lambda facts: {"volumes": facts.floats(facts.batch, 1)},
    further=(lambda facts: {"captions": facts.floats(facts.batch, 5)},),
)


def test_one_entry_is_all_that_a_model_type_needs(monkeypatch):
    model = Clips(ClipsConfig())
    assert example_inputs(model)[1]["pixel_values"].shape == (2, 1, 8, 8)  # by the name alone
    monkeypatch.setitem(FAMILIES, "clips", ENTRY)
    first, second = (kwargs for _, kwargs in example_calls(model))
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "pixel_values": (2, 3, 1, 8, 8),
        "volumes": (2, 1),
    }
    assert second["captions"].shape == (2, 5)
    assert trace(model).coverage() == 1.0


def test_a_model_type_has_one_entry():
    tables = (vision.VISION, multimodal.MULTIMODAL, sound.SOUND, text.TEXT)
    assert sum(map(len, tables)) == len(FAMILIES)
    assert Family() not in FAMILIES.values()
