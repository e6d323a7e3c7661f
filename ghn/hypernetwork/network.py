"""The network itself: encode graphs, decode parameters, save and load."""

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ghn.apply.init_ import init_, predict
from ghn.apply.knowledge import Examples
from ghn.apply.report import Report
from ghn.base import RuleSet, default_rules, in_scheme
from ghn.base.predicted import predicted_params
from ghn.checkpoints import WEIGHTS, resolve_checkpoint
from ghn.decoder import (
    LEARNED,
    MEMORY,
    DecodeCache,
    Learned,
    Prediction,
    PredictionCache,
    SlotDecoder,
    build_decoder,
)
from ghn.encoder import build_encoder
from ghn.errors import (
    CheckpointConfigError,
    CheckpointError,
    ConfigError,
    OutputError,
    PredictionError,
    did_you_mean,
    one_line,
)
from ghn.graph.graph import ComputationGraph
from ghn.hypernetwork.config import FORMAT_VERSION, GHNConfig
from ghn.hypernetwork.files import check_counts, check_tensors, name_parts, write_parts
from ghn.quantization import quantize, restore
from ghn.settings import own_settings


class GHN(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ghn",
    license="apache-2.0",
    tags=["graph-hypernetwork", "weight-initialization"],
):
    """Graph hypernetwork: predicts the parameters of any traced model.

    ``forward`` sees graphs only; ``predict`` and ``init_`` trace a model first. Saved and loaded through
    ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, as safetensors and config.json.

    References:
        HyperNetworks, https://arxiv.org/abs/1609.09106; GHN-3, https://arxiv.org/abs/2303.04143
    """

    def __init__(self, config: GHNConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config = GHNConfig.from_dict(config) if isinstance(config, Mapping) else config or GHNConfig()
        self._hub_mixin_config = self.config
        self.encoder = build_encoder(self.config.encoder)
        self.decoder = build_decoder(self.config.encoder.hidden, self.config.decoder)
        self.cache = PredictionCache()

    def forward(
        self,
        graphs: Sequence[ComputationGraph],
        seed: int = 0,
        learned: Learned = True,
        rules: RuleSet | None = None,
    ) -> list[tuple[dict[str, Tensor], Prediction]]:
        """Predict the parameters of graphs; wrappers such as ``DistributedDataParallel`` find the tensors in it.

        Args:
            graphs: From ``ghn.trace``.
            seed: As ``predict_graph`` takes it, and so are ``learned`` and ``rules``.
            learned: How much of what was learned is in it.
            rules: How parameters start.

        Returns:
            Of each graph the parameters, by ``ParamSpec.name``, and the prediction that they are of, which knows their
            rules and learned shares.
        """
        predictions = [self.predict_graph(graph, seed, learned, rules) for graph in graphs]
        return [(prediction.params, prediction) for prediction in predictions]

    def predict_graph(
        self, graph: ComputationGraph, seed: int = 0, learned: Learned = True, rules: RuleSet | None = None
    ) -> Prediction:
        """Encode a graph, and prepare to decode its parameters; every prediction is made here.

        Without gradients, what a graph's embeddings and parameters take is kept for the next time (``cache``).

        Args:
            graph: From ``ghn.trace``.
            seed: Keys the random base; the learned part is deterministic.
            learned: As ``init_`` takes it; False gives the base alone, as if the hypernetwork had never been trained.
            rules: How parameters start; None is ``ghn.base.default_rules()``.

        Returns:
            ``params`` has float32 tensors on the hypernetwork's device, by ``ParamSpec.name``; parameters that no
            executed operation uses are absent. ``stream`` makes them in slices.

        Raises:
            PredictionError: If no rule is for a parameter, one fails or says what can't be, or the hypernetwork is
                damaged or can't predict.
        """
        rules = rules or default_rules()
        if learned not in LEARNED:
            raise ConfigError(
                f"learned={learned!r}; expected True, False, 'all' or 'early'.{did_you_mean(str(learned), LEARNED[2:])}"
            )
        if torch.is_grad_enabled():
            embeddings = self.encode(graph)
            return Prediction(self.decoder, self.decoder.plan(graph, rules), embeddings, seed, learned)
        self.check_weights()
        # Nodes by identity: an entry keeps its graph and rules, so that no others get their ids.
        same_graph = (id(graph.nodes), id(graph.edges), graph.params)
        state = tuple(zlib.crc32(value.detach().cpu().contiguous().numpy().data) for value in self._values())
        key = (same_graph, id(rules), state, self.training, self.device)
        return self.cache.get(key, partial(self._remembered, graph, rules)).like(seed, learned)

    def _remembered(self, graph: ComputationGraph, rules: RuleSet) -> Prediction:
        embeddings = self.encode(graph)
        self._check_finite(embeddings, graph)
        return Prediction(self.decoder, self.decoder.plan(graph, rules), embeddings, cache=DecodeCache())

    def _values(self) -> Iterator[Tensor]:
        """All weights, learned or not."""
        return itertools.chain(self.parameters(), self.buffers())

    def _check_finite(self, embeddings: Tensor, graph: ComputationGraph) -> None:
        """Refuse damage; everything computed from finite weights and embeddings is finite."""
        # Sums take a tenth of the time; those of finite numbers may still overflow.
        if all(
            math.isfinite(value.sum()) or torch.isfinite(value).all()
            for value in (embeddings, *self._values())
        ):
            return
        of = "".join(f" for {spec.name!r} of shape {spec.shape}" for spec in predicted_params(graph)[:1])
        raise PredictionError(
            f"the prediction{of} is not finite; the hypernetwork's weights are damaged or its training diverged: load "
            "another checkpoint"
        )

    def encode(self, graph: ComputationGraph) -> Tensor:
        """Embed the attached parameters of a graph, shape ``(tensors, hidden)``, in the order of ``graph.params``."""
        self.check_weights()
        with own_settings():
            data = graph.to_pyg().to(self.device)
            embeddings: Tensor = self.encoder(data)[data.param_index]
        return embeddings

    def predict(
        self,
        model: nn.Module,
        inputs: Any = None,
        seed: int = 0,
        learned: Learned = True,
        *,
        keep_deliberate: bool = True,
        rules: RuleSet | None = None,
    ) -> dict[str, Tensor]:
        """Predict the parameters of a model and leave the model alone.

        Differentiable in the hypernetwork's weights: pass the result to ``torch.func.functional_call(model, params,
        …)`` and a loss on the model's output reaches them.

        Args:
            model: Any module; on the meta device too, then tensors are made on the hypernetwork's device.
            inputs: Example inputs (tensor, tuple of positional or dict of keyword arguments); found automatically for
                models of timm, torchvision and Hugging Face.
            seed: Same seed, same result; the order of parameters is irrelevant.
            learned: As ``init_`` takes it.
            keep_deliberate: Leave out what its owner initialized deliberately; see ``ghn.apply.deliberate``.
            rules: How parameters start, such as ``default_rules().without(name)`` of ``ghn.base``; None is the default.

        Returns:
            Tensors of each parameter's shape, dtype and device by its first name; tied names appear once, parameters
            that aren't predicted not at all.

        Raises:
            TraceError: If the model can't be run on the inputs.
            PredictionError: If no rule is for a parameter, or one fails or says what can't be.
            ConfigError: If ``seed`` can't be used.
        """
        return predict(self, model, inputs, seed, learned, keep_deliberate, rules)

    def init_(
        self,
        model: nn.Module,
        inputs: Any = None,
        seed: int = 0,
        learned: Learned = True,
        *,
        examples: Examples | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory: int = MEMORY,
        keep_deliberate: bool = True,
        rules: RuleSet | None = None,
    ) -> Report:
        """Initialize a model in place with predicted parameters, piece by piece.

        Nothing is written before it is known that everything can be predicted. A model on the meta device gets its
        memory here; one cut by FSDP2 (``fully_shard``) or tensor parallelism gets only what this process holds, without
        communication, with the bits it would have in one process.

        Args:
            model: As ``predict`` takes it, and so are ``inputs``, ``seed`` and ``learned``.
            inputs: Example inputs.
            seed: Same seed, same result, whatever ``memory`` is.
            learned: How much of what was learned it takes. "all" is for data it was learned from, "early" for others:
                it fades out with depth, and the last layer has none. True is "all" for a language model with the
                vocabulary it was learned with, else "early" unless ``examples`` say otherwise. False is the base alone.
            examples: A few hundred inputs and the right classes, as a loss takes them: a model that tells these better
                than chance with all that was learned gets all.
            device: Where the model goes; None leaves it, or puts a meta model on the CPU.
            dtype: float32, bfloat16, float16 or float64; None is what the model has.
            memory: Bytes to take beside the model and the graph's encoding, roughly.
            keep_deliberate: Keep what its owner initialized deliberately: zeros that end a residual branch, a chosen
                scale …; see ``ghn.apply.deliberate``. False predicts it.
            rules: As ``predict`` takes it; the report says which one made each parameter.

        Returns:
            Fate of every parameter name: predicted, tied or kept, with the reason. Names are those inside of
            data-parallel and compilation wrappers, which change no value.

        Raises:
            TraceError: If the model can't be run on the inputs.
            PredictionError: If there is nothing to predict, a rule fails, a prediction is not finite, or a tensor on
                the meta device is neither predicted nor computed by its module; or, in the middle, memory or a device
                is gone.
            ConfigError: If ``device``, ``dtype`` or ``seed`` can't be used, or ``memory`` is too little.
            DataError: If the model fails on ``examples``, or their classes don't fit what it returns.
        """
        return init_(
            self, model, inputs, seed, learned, examples, memory, device, dtype, keep_deliberate, rules
        )

    def rules(self, rules: RuleSet | None = None) -> RuleSet:
        """How parameters start: by some rules (None is ``ghn.base.default_rules()``) as ``decoder.scheme`` has them."""
        return in_scheme(rules or default_rules(), self.config.decoder.scheme)

    def check_weights(self) -> None:
        """Check that the hypernetwork can predict; its arithmetic is float32, whatever the target's dtype.

        Raises:
            PredictionError: If a weight is of another type, or on the meta device.
        """
        for name, weight in self.named_parameters():
            if weight.is_meta:
                raise PredictionError(
                    f"the hypernetwork's {name!r} is on the meta device and has no values; load it there where it is "
                    "to compute: GHN.from_pretrained(…).to(device)"
                )
            if weight.dtype != torch.float32:
                raise PredictionError(
                    f"the hypernetwork's {name!r} is {weight.dtype}, and it computes in torch.float32; call "
                    "net.float(). Predictions get the target's dtype, or that of init_(…, dtype=…)"
                )

    def fingerprint(self) -> str:
        """Digest, 16 hexadecimal digits, of configuration and weights: equal ones predict the same."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for name, value in self.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        """Where the hypernetwork's weights are."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path | None = None, **kwargs: Any) -> "GHN":  # type: ignore[override]
        """Load a hypernetwork from a folder, a hub id, or, without an argument, the checkpoint that ships with ghn.

        Args:
            checkpoint: Folder with ``config.json`` and ``model.safetensors``, or ``"org/name"`` on the hub.
            **kwargs: ``revision``, ``token``, ``cache_dir`` … of ``PyTorchModelHubMixin.from_pretrained``.

        Raises:
            CheckpointError: If it is missing, corrupted, not a hypernetwork, or a pickle.
            CheckpointConfigError: If its configuration is invalid or from a newer version (a CheckpointError and a
                ConfigError).
        """
        source = resolve_checkpoint(checkpoint)
        try:
            return super().from_pretrained(source, **kwargs)
        except ConfigError as error:
            raise CheckpointConfigError(
                f"{source} can't be loaded, because of its config.json: {one_line(error, 500)}"
            ) from error
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{source} can't be loaded: {one_line(error)}. It is truncated, corrupted, or not a ghn checkpoint; "
                "copy or download it again"
            ) from error
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise CheckpointError(
                f"no checkpoint at {source!r}: it is neither a folder with config.json and model.safetensors nor "
                f"reachable on the hub ({one_line(error)})"
            ) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", **kwargs: Any) -> "GHN":
        """Load safetensors strictly; unlike the mixin's own method, never falls back to a pickle."""
        config = kwargs.pop("config", None)
        folder = Path(model_id)
        download = {
            key: kwargs[key]
            for key in ("revision", "cache_dir", "force_download", "local_files_only", "token")
        }
        file = folder / WEIGHTS if folder.is_dir() else hf_hub_download(model_id, WEIGHTS, **download)
        settings = GHNConfig.from_dict(config) if isinstance(config, Mapping) else config or GHNConfig()
        check_counts(Path(file), settings)
        with own_settings(), torch.device("meta"):
            net = cls(settings)
        check_tensors(Path(file), net.state_dict())
        restored = restore(load_file(file, device=str(map_location)))
        # Copies are aligned in memory, as those of a new network are: sums come out the same to the last bit.
        weights = {name: weight.to(torch.float32, copy=True) for name, weight in restored.items()}
        for name, weight in weights.items():
            if not torch.isfinite(weight).all():
                raise CheckpointError(
                    f"{model_id} holds {name!r}, which is not finite: its training diverged, or it is damaged; load "
                    "another checkpoint"
                )
        net.load_state_dict(weights, assign=True)
        return net.to(map_location).eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, which is made if it is missing.

        Args:
            save_directory: The folder.
            **kwargs: ``push_to_hub``, ``repo_id`` … of ``PyTorchModelHubMixin.save_pretrained``.

        Returns:
            The address of the commit, if it was pushed to the hub.

        Raises:
            OutputError: If the folder can't be written, or the hypernetwork has no values: on the meta device.
        """
        folder = Path(save_directory)
        if self.device.type == "meta":
            raise OutputError(
                "a hypernetwork on the meta device has no values to save; load or train it first"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            bits = self.decoder.bits if isinstance(self.decoder, SlotDecoder) else {}
            tensors = quantize(self.state_dict(), {f"decoder.{name}": count for name, count in bits.items()})
            config = replace(self.config, version=FORMAT_VERSION) if bits else self.config
            write_parts(folder, tensors, config.to_dict())
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"no checkpoint can be written to {folder}: {one_line(error)}; pass another folder"
            ) from error
        url: str | None = super().save_pretrained(folder, **kwargs)
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        """Give the written files their names; the mixin has just deleted the earlier configuration."""
        name_parts(save_directory)
