"""Write an initialized model as its own zoo loads it, completely or not at all."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghn.apply.init_ import check_numbers, checked_prediction
from ghn.apply.materialize import materialized
from ghn.apply.predictor import Predictor
from ghn.apply.report import Report
from ghn.apply.tensor_file import Form, TensorFile, open_file, open_folder
from ghn.base import RuleSet
from ghn.base.predicted import predicted_names
from ghn.decoder import MEMORY, Learned
from ghn.errors import OutputError, PredictionError
from ghn.files import replacing, sweep_beside
from ghn.settings import own_settings

SUFFIX = ".safetensors"

_REMEDY = "nothing was left behind"

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
)
"""Files that a folder of transformers holds; nothing else is ever deleted."""


def output_path(spec: str, out: str | Path, overwrite: bool = False) -> Path:
    """Where ``export`` will write; call it before long work, so that what can't be written is known early.

    Args:
        spec: Specification of the model, as ``ghn.load_model`` takes it.
        out: A folder for ``hf:`` models. For others a ``.safetensors`` file, or an existing folder to put it in.
        overwrite: Whether an earlier export may be replaced.

    Raises:
        OutputError: If the name doesn't fit, the place is taken or missing, or nothing can be written there.
    """
    path = Path(out).expanduser()
    if _is_folder_zoo(spec):
        _check_folder(path, spec, overwrite)
    else:
        path = path / _file_name(spec) if path.is_dir() else path
        _check_file(path, spec, overwrite)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            f"{path} can't be written: there is no folder {parent}; make it with: mkdir -p {parent}"
        )
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror} in {parent}; choose another place or change its permissions"
        ) from error
    return path


def export(model: nn.Module, spec: str, out: str | Path, overwrite: bool = False) -> Path:
    """Write a model: a folder for ``AutoModel….from_pretrained`` (``hf:``), a state dictionary for all others.

    The state dictionary holds every parameter and buffer under every name, as ``load_state_dict`` and
    ``timm.create_model(…, checkpoint_path=FILE)`` take it; the folder each tied tensor once, in files of up to 5 GB.
    Everything goes under a temporary name beside the target first: an interruption leaves the target as it was.

    Arguments are those of ``output_path``.

    Returns:
        What was written: the file or folder.

    Raises:
        OutputError: As ``output_path``, or if writing fails halfway (disk full).
    """
    state = _state(model, spec)
    path = output_path(spec, out, overwrite)
    sweep_beside(path.absolute())
    forms = {name: Form(tuple(value.shape), value.dtype) for name, value in state.items()}
    with replacing(path, _REMEDY) as part, _open_files(part, model, spec, forms) as files:
        for name, value in state.items():
            files[name].write(name, value)
    return path


def export_prediction(
    net: Predictor,
    model: nn.Module,
    spec: str,
    out: str | Path,
    inputs: Any = None,
    *,
    seed: int = 0,
    learned: Learned = True,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    memory: int = MEMORY,
    keep_deliberate: bool = True,
    rules: RuleSet | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, Report]:
    """Predict a model straight into the files of ``export``, whose predicted parameters are never in memory as a whole.

    Args:
        net: The hypernetwork.
        model: From ``ghn.load_model(spec, device="meta")``; its parameters stay there. One with values works too.
        spec: Specification of the model.
        out: As ``output_path`` takes it.
        inputs: Example inputs, found automatically for models of timm, torchvision and Hugging Face.
        seed: Same seed, same weights.
        learned: As ``GHN.init_`` takes it.
        dtype: Type of the written floating-point parameters and buffers.
        overwrite: Whether an earlier export may be replaced.
        memory: Bytes to take, roughly.
        keep_deliberate: As ``GHN.init_`` takes it; a parameter on the meta device has no values to keep.
        rules: As ``GHN.init_`` takes it.
        progress: Called with the number of bytes written and of all bytes.

    Returns:
        The file or folder, and the fate of every parameter.

    Raises:
        OutputError: As ``export``.
        ConfigError: If ``seed`` or ``memory`` is no number, or out of range.
        PredictionError: As ``GHN.init_``.
        TraceError: If the model can't be run on the inputs.
    """
    check_numbers(seed, memory)
    path = output_path(spec, out, overwrite)
    sweep_beside(path.absolute())
    prediction = checked_prediction(net, model, inputs, seed, learned, keep_deliberate, rules)
    targets = predicted_names(prediction.graph)
    with torch.no_grad(), materialized(model, targets, None, dtype, seed, whole=False), own_settings():
        state = _state(model, spec)
        forms = {
            name: Form(tuple(value.shape), dtype if value.is_floating_point() else value.dtype)
            for name, value in state.items()
        }
        names = {id(parameter): name for name, parameter in model.named_parameters() if name in targets}
        copies: dict[str, list[str]] = {}
        total, done = sum(form.nbytes for form in forms.values()), 0
        with replacing(path, _REMEDY) as part, _open_files(part, model, spec, forms) as files:
            for name, value in state.items():
                if id(value) in names:
                    copies.setdefault(names[id(value)], []).append(name)
                else:
                    files[name].write(name, value)
                    done += forms[name].nbytes
            for entry in prediction.stream(memory, keep=False):
                values = entry.make(None)
                # None: a model may leave parameters out of its files.
                for name in copies.get(entry.spec.name, ()):
                    files[name].write(name, values, entry.start * entry.columns)
                    done += values.numel() * dtype.itemsize
                progress(done, total)
    return path, Report.of(prediction)


@contextmanager
def _open_files(
    part: Path, model: nn.Module, spec: str, forms: Mapping[str, Form]
) -> Iterator[Mapping[str, TensorFile]]:
    if not _is_folder_zoo(spec):
        with open_file(part, forms, {"format": "pt", "model": spec}) as files:
            yield files
        return
    part.mkdir()
    with open_folder(part, forms) as files:
        yield files
    # Any: its class is transformers' PreTrainedModel, which would be slow to import for all other models.
    transformer: Any = model
    dtype = next((form.dtype for form in forms.values() if form.dtype.is_floating_point), torch.float32)
    config = copy.deepcopy(transformer.config)
    config.dtype = str(dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    try:
        config.save_pretrained(part)
        if transformer.can_generate():
            transformer.generation_config.save_pretrained(part)
    except ValueError as error:
        raise OutputError(f"transformers can't write the configuration ({error}); {_REMEDY}") from error


def _is_folder_zoo(spec: str) -> bool:
    return spec.startswith("hf:")


def _file_name(spec: str) -> str:
    name = spec.partition(":")[2].replace("/", "-").replace(":", "-")
    return f"{name}{SUFFIX}"


def _check_file(path: Path, spec: str, overwrite: bool) -> None:
    if path.suffix != SUFFIX:
        raise OutputError(
            f"{path} doesn't end with {SUFFIX}, and {spec!r} is written as one such file; "
            f"pass {path.with_suffix(SUFFIX)}, or an existing folder"
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass --overwrite (overwrite=True) to replace it, or another name")


def _check_folder(path: Path, spec: str, overwrite: bool) -> None:
    if path.is_file() or path.suffix == SUFFIX:
        raise OutputError(
            f"{path} is a file's name, and {spec!r} is written as a folder; pass {path.with_suffix('')}"
        )
    entries = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
    if entries and not overwrite:
        raise OutputError(
            f"{path} is not empty; pass --overwrite (overwrite=True) to replace it, or another name"
        )
    foreign = [name for name in entries if not any(fnmatchcase(name, pattern) for pattern in _MODEL_FILES)]
    if foreign:
        raise OutputError(
            f"{path} holds more than a model ({foreign[0]!r}, for one), which overwriting would delete; "
            "choose another folder"
        )


def _state(model: nn.Module, spec: str) -> dict[str, Tensor]:
    """What the model's own zoo would save, parameters as they are in the model (on meta, too)."""
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise PredictionError(
                f"{name!r} in the model's state is {type(value).__name__}; only tensors can be written as {SUFFIX}"
            )
    if not _is_folder_zoo(spec):
        return state
    # Transformers ties the former again when it loads a model, and computes the latter anew.
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    patterns = getattr(model, "_keys_to_ignore_on_save", None) or ()
    return {
        name: value
        for name, value in state.items()
        if name not in patterns and not (name in ties and ties[name] in state and state[ties[name]] is value)
    }
