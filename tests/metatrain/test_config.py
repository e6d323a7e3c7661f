"""Settings: one flat set of names, checked, and every one of them an option of the command line."""

import json

import pytest
import typer

from ghn import cli
from ghn.console import run_app
from ghn.errors import ConfigError
from ghn.metatrain.config import MetaTrainConfig


def test_settings_come_back_from_json() -> None:
    config = MetaTrainConfig.from_dict(
        {"images": "digits", "left_out": ["vit", "resnet"], "objective_settings": {"steps": 3}, "seed": 5}
    )
    assert config.sampling.left_out == ("vit", "resnet")
    assert MetaTrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to learn from: give images"),
        ({"images": "digits", "image_sise": 8}, "no setting 'image_sise'. Did you mean 'image_size'"),
        ({"images": "digits", "updates": 0}, "updates is 0; expected 1 or more"),
        ({"images": "digits", "updates": "4"}, "updates is '4'; expected int"),
        ({"images": "digits", "image_lr": 0.0}, "image_lr is 0.0; expected more than 0"),
        ({"images": "digits", "grey": 1.5}, "grey is 1.5; expected a share"),
        ({"images": "digits", "image_share": -0.5}, "image_share is -0.5"),
        ({"images": "digits", "rank": -1}, "rank is -1"),
        ({"images": "digits", "ema": 1.0}, "ema 1.0"),
        ({"images": "digits", "full_every": -1}, "full_every is -1"),
        ({"images": "digits", "networks": 0}, "networks is 0"),
        ({"images": "digits", "save_every": 0}, "save_every is 0"),
        ({"images": "digits", "text": "python-stdlib", "space": "a:B"}, "one of images, text and task"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MetaTrainConfig.from_dict(settings)


def test_every_setting_is_an_option_with_help() -> None:
    command = typer.main.get_command(cli.app).commands["train"]
    options = {parameter.name: parameter for parameter in command.params}
    names = MetaTrainConfig.from_dict({"images": "digits"}).to_dict().keys()
    assert names <= options.keys()
    assert all("[default: " in options[name].help for name in names)
    assert "in pixels" in options["image_size"].help


def test_options_win_over_settings(tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr("ghn.metatrain.run.metatrain", lambda config, *_: seen.append(config))
    settings = json.dumps({"images": "digits", "updates": 7, "seed": 3})
    options = ["--updates", "9", "--left-out", "vit", "--left-out", "plain"]
    options += ["--objective", "after_k", "--objective-settings", '{"steps": 2}']
    run_app(cli.app, ["train", str(tmp_path), "--settings", settings, *options])
    (config,) = seen
    assert (config.optimizer.updates, config.seed, config.data.images) == (9, 3, "digits")
    assert config.sampling.left_out == ("vit", "plain")
    assert config.objective_settings == {"steps": 2}
