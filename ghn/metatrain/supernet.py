"""Meta-training of slots: networks are cut out of shared tables, tried on a batch, and their gradients go back.

The loop of a weight-sharing supernet (Once-for-All, https://arxiv.org/abs/1908.09791), over all families of a space at
once. Its budget is counted in target-images: updates x targets x examples.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn
from torch.func import functional_call

from ghn.data.images import ImageData
from ghn.data.load import load_images, load_text
from ghn.data.text import TextData, load_tokenizer
from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.decoder import Decoder, Order
from ghn.decoder.recipe import Recipe
from ghn.decoder.slot_decoder import SlotDecoder
from ghn.decoder.slots import Noise, Part, SlotBank, accumulate, as_matrix, make, slot_sizes
from ghn.encoder import EncoderConfig
from ghn.errors import CheckpointError, ConfigError
from ghn.files import replacing, write_whole
from ghn.graph.graph import ComputationGraph
from ghn.graph.trace import trace
from ghn.hypernetwork import GHN, GHNConfig
from ghn.metatrain.graphs import GRAPHS, Graphs
from ghn.spaces import Architecture, Space

STATE, LOG, PROGRESS = "state.safetensors", "log.jsonl", "progress.png"

SHARED_WITH = {"llama": "gpt2", "vit_relpos": "vit"}
"""Families that share the slots of another."""

SLOW = frozenset({"gmlp", "resmlp", "vit", "vit_relpos"})
"""Families whose networks take about three times as long as convolutional ones."""

SHIFT = 2
"""Pixels by which images are moved at most while training."""

GREY = 0.25
"""Share of the batches without colours, so that what is learned serves data without them (scripts/LOG.md)."""

Batch = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class SupernetConfig:
    """What to learn from and how; a resumed run must have the same."""

    images: str = ""
    """Image data: hub id or folder; empty for none."""
    text: str = ""
    """Text data: hub id or folder; empty for none."""
    image_size: int = 16
    """Side of the square images, in pixels."""
    sequence_length: int = 64
    """Tokens per text example."""
    text_tokens: int = 2**25
    """Tokens that are read of a text at most."""
    full_every: int = 8
    """Every how many-th network is of the space's full scale, the others of the small one; 0 for none."""
    networks: int = 1000
    """Architectures of each kind of data."""
    slow_weight: float = 0.5
    """How often a family of transformers or mixers is drawn for each time that a convolutional one is."""
    left_out: str = "resnetv2"
    """A family that is validated and not trained on."""
    rank: int = 0
    """Of the slots' tables for kernels, and twice as much for matrices; 0 learns the slots' matrices themselves."""
    largest: int = 2_000_000
    """Parameters above which a network is left out of training: the tables have to fit into a checkpoint."""
    updates: int = 10_000
    """Of the tables, per call that starts anew."""
    targets: int = 2
    """Networks of an update."""
    image_batch: int = 64
    """Images of a target."""
    text_batch: int = 16
    """Sequences of a target."""
    image_share: float = 0.5
    """Of the updates, where there are both kinds of data."""
    image_lr: float = 4e-2
    """Peak learning rate of the tables of networks that see images."""
    text_lr: float = 2e-2
    """The same of language models."""
    vector_lr: float = 6e-3
    """Of vectors and of the low-rank parts' shares."""
    warmup: int = 200
    """Updates over which the rate rises."""
    decay: float = 0.5
    """Share of the updates, at the end, over which the rate falls linearly to zero."""
    clip_norm: float = 1.0
    """Largest gradient norm of an update."""
    ema: float = 0.99
    """Decay of the averaged tables for each update that touches them."""
    validate_every: int = 2000
    """Updates between validations."""
    validation_networks: int = 3
    """Networks of each family that are validated; none of them is trained on."""
    seed: int = 0
    """Keys everything random."""


@dataclass(frozen=True)
class Target:
    """A network with what it takes to cut it out."""

    family: str
    model: nn.Module
    parts: list[Part]
    constants: dict[str, Tensor]
    """Parameters without slots, as the zoo starts them."""


class ImageSource:
    """Normalized images on the CPU, all in memory."""

    kind = "images"

    def __init__(self, config: SupernetConfig) -> None:
        data: ImageData = load_images(config.images).fit(config.image_size, 3)
        self.arguments = {"num_classes": data.classes}
        self.train, self.test = (self._whole(data, split) for split in (data.train, data.evaluation))
        self.batch, self.width = config.image_batch, data.classes
        self.example = self.train[0][:2]

    @staticmethod
    def _whole(data: ImageData, split: Any) -> tuple[Tensor, Tensor]:
        pixels, labels = split.__getitems__(list(range(len(split))))
        mean, std = data.mean[:, None, None], data.std[:, None, None]
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last), labels

    def draw(self, generator: torch.Generator) -> Batch:
        """A batch of images, all moved and perhaps mirrored or greyed alike."""
        pixels, labels = self.train
        rows = torch.randint(len(pixels), (self.batch,), generator=generator)
        x, y = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
        size = pixels.shape[-1]
        moved = nn.functional.pad(pixels[rows], (SHIFT,) * 4)[..., y : y + size, x : x + size]
        if torch.rand((), generator=generator) < 0.5:
            moved = moved.flip(-1)
        if torch.rand((), generator=generator) < GREY:
            moved = moved.mean(1, keepdim=True).expand_as(moved)
        return moved.contiguous(memory_format=torch.channels_last), labels[rows]

    def loss(self, model: nn.Module, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean cross-entropy in nats."""
        return nn.functional.cross_entropy(functional_call(model, dict(weights), batch[0]), batch[1])

    @torch.no_grad()
    def metric(self, model: nn.Module, weights: Mapping[str, Tensor]) -> float:
        """Accuracy on the first thousand test images under batch statistics, in [0, 1]."""
        pixels, labels = self.test
        right = 0
        for start in range(0, 1000, 250):
            logits = functional_call(model, dict(weights), pixels[start : start + 250])
            right += int((logits.argmax(1) == labels[start : start + 250]).sum())
        return right / 1000


class TextSource:
    """Token sequences, all in memory."""

    kind = "text"

    def __init__(self, config: SupernetConfig) -> None:
        data: TextData = load_text(config.text).tokenize(
            load_tokenizer("bytes"), config.sequence_length, config.text_tokens
        )
        self.arguments = dict(data.special)
        self.train, self.test = (
            split.__getitems__(list(range(len(split))))[0] for split in (data.train, data.evaluation)
        )
        self.batch, self.width = config.text_batch, data.vocabulary
        self.example = {"input_ids": self.train[:2, :-1].long(), "use_cache": False}

    def draw(self, generator: torch.Generator) -> Batch:
        """A batch of sequences."""
        return (self.train[torch.randint(len(self.train), (self.batch,), generator=generator)].long(),)

    def loss(self, model: nn.Module, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean cross-entropy of the next token in nats."""
        inputs = {"input_ids": batch[0][:, :-1], "use_cache": False}
        logits = functional_call(model, dict(weights), (), inputs, tie_weights=True).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())

    @torch.no_grad()
    def metric(self, model: nn.Module, weights: Mapping[str, Tensor]) -> float:
        """Minus the bits per token on 256 test sequences."""
        batches = [(self.test[start : start + 64].long(),) for start in range(0, 256, 64)]
        losses = [float(self.loss(model, weights, batch)) for batch in batches]
        return -sum(losses) / len(losses) / math.log(2)


Source = ImageSource | TextSource


class Pool:
    """The networks of a kind of data, numbered; negative numbers are for validation."""

    def __init__(self, config: SupernetConfig, source: Source, graphs: Graphs) -> None:
        self._config, self._source, self._graphs = config, source, graphs
        sizes = {
            "image_size": config.image_size,
            "sequence_length": config.sequence_length,
            "vocabulary": source.width,
        }
        self._spaces = {scale: Space(scale=scale, **sizes) for scale in ("small", "full")}
        self._target = lru_cache(maxsize=2 * config.networks)(self._make)

    def architecture(self, number: int) -> Architecture:
        """Network ``number``; the family that is left out only has negative ones."""
        config = self._config
        attempt = 0
        while True:
            full = config.full_every and number >= 0 and number % config.full_every == 0
            seed = config.seed if number >= 0 else config.seed + 1
            found = self._spaces["full" if full else "small"].draw(
                self._source.kind, abs(number) * 1000 + attempt, seed
            )
            if number < 0 or found.family != config.left_out:
                return found
            attempt += 1

    @cached_property
    def by_family(self) -> dict[str, list[int]]:
        """Numbers of the networks to train on, by family."""
        found: dict[str, list[int]] = {}
        for number in range(self._config.networks):
            if sum(spec.numel for spec in self.graph(number).params) <= self._config.largest:
                found.setdefault(self.architecture(number).family, []).append(number)
        return found

    def draw(self, rng: random.Random) -> int:
        """Number of a network, of a family drawn first."""
        families = sorted(self.by_family)
        weights = [self._config.slow_weight if family in SLOW else 1.0 for family in families]
        return rng.choice(self.by_family[rng.choices(families, weights)[0]])

    def validation(self) -> list[int]:
        """Numbers of the networks to validate, a few of each family."""
        counts: dict[str, int] = {}
        numbers = []
        for number in range(-1, -400, -1):
            family = self.architecture(number).family
            if counts.get(family, 0) < self._config.validation_networks:
                counts[family] = counts.get(family, 0) + 1
                numbers.append(number)
        return numbers

    def graph(self, number: int) -> ComputationGraph:
        """Traced, or read from the run's folder."""
        architecture = self.architecture(number)
        key = f"{architecture.key} {sorted(self._source.arguments.items())} {self._config.image_size}"
        return self._graphs.graph(f"{key} {self._config.sequence_length}", partial(self._trace, architecture))

    def _trace(self, architecture: Architecture) -> ComputationGraph:
        return trace(architecture.build(**self._source.arguments), self._source.example)

    def family(self, number: int) -> str:
        """Whose slots it uses."""
        family = self.architecture(number).family
        return SHARED_WITH.get(family, family)

    def target(self, number: int, bank: SlotBank) -> Target:
        """Kept in memory once made."""
        return self._target(number, bank)

    def _make(self, number: int, bank: SlotBank) -> Target:
        graph, family = self.graph(number), self.family(number)
        if family not in bank.families:
            family = bank.family(graph)[0]
        parts = bank.parts(graph, self._graphs.made_of(graph), family)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.architecture(number).build(**self._source.arguments)
        model.train().requires_grad_(False)
        if self._source.kind == "images":
            model.to(memory_format=torch.channels_last)
        made = {part.recipe.spec.name for part in parts if part.cuts}
        constants: dict[str, Tensor] = {
            name: value for name, value in model.named_parameters() if name not in made
        }
        for name, value in model.named_parameters():
            if name in made:
                value.data = torch.empty(0)  # what is cut out stands in for it
        return Target(family, model, parts, constants)


@dataclass
class Supernet:
    """All that a run changes."""

    bank: SlotBank
    average: SlotBank
    optimizer: torch.optim.Optimizer
    done: int = 0
    seen: int = 0
    """Target-images and target-sequences."""


def train_supernet(
    config: SupernetConfig,
    folder: Path,
    max_seconds: float = math.inf,
    start: Path | None = None,
    progress: Callable[[str], None] = print,
) -> SlotBank:
    """Train slots; go on where an earlier call with the same settings and folder stopped.

    Args:
        config: Settings.
        folder: Gets the state, the log, the curve and graphs.
        max_seconds: Save and return after about this long.
        start: What to begin with: tables of an earlier run, or a checkpoint's folder.
        progress: Told a line now and then.

    Returns:
        The averaged tables.
    """
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    sources: dict[str, Source] = {}
    if config.images:
        sources["images"] = ImageSource(config)
    if config.text:
        sources["text"] = TextSource(config)
    graphs = Graphs(DecoderConfig(scope="all"), folder / GRAPHS)
    pools = {name: Pool(config, source, graphs) for name, source in sources.items()}
    state = _begin(config, folder, pools, graphs, start, progress)
    rows: list[dict[str, Any]] = []
    numbers = {name: pool.validation() for name, pool in pools.items()}
    noise = Noise(torch.Generator().manual_seed(config.seed))
    seconds = dict.fromkeys(("draw", "predict", "target", "backward", "optimizer", "validate"), 0.0)
    while state.done < config.updates:
        rows.append(update(state, config, sources, pools, noise, seconds))
        late = time.monotonic() - begun > max_seconds
        if state.done % config.validate_every == 0 or late or state.done == config.updates:
            clock = time.perf_counter()
            rows.append(validate(state, sources, pools, numbers))
            seconds["validate"] += time.perf_counter() - clock
            save(state, config, folder, rows)
            progress(_line(state, rows, seconds))
            rows.clear()
            plot(folder)
        if late:
            break
    return state.average


def update(
    state: Supernet,
    config: SupernetConfig,
    sources: Mapping[str, Source],
    pools: Mapping[str, Pool],
    noise: Noise,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Learn from a few networks of one kind of data; returns the row for the log."""
    clock = _Clock(seconds)
    rng = random.Random(f"{config.seed}/{state.done}")
    names = sorted(sources)
    kind = names[0] if len(names) == 1 or rng.random() < config.image_share else "text"
    source, pool = sources[kind], pools[kind]
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    losses: dict[str, list[float]] = {}
    noise.generator.manual_seed(rng.getrandbits(63))
    clock.lap("draw")
    for _ in range(config.targets):
        target = pool.target(pool.draw(rng), state.bank)
        batch = source.draw(generator)
        clock.lap("draw")
        made, saved = make(state.bank, target.parts, noise)
        weights = {name: values.requires_grad_() for name, values in made.items()}
        clock.lap("predict")
        if not weights:  # of a family that the tables don't know
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.getrandbits(31))  # dropout of the target
            loss = source.loss(target.model, {**target.constants, **weights}, batch)
            loss.backward()
        value = loss.item()
        clock.lap("target")
        if math.isfinite(value):
            gradients = {name: values.grad for name, values in weights.items() if values.grad is not None}
            accumulate(state.bank, saved, gradients, 1 / config.targets)
            losses.setdefault(target.family, []).append(value)
        clock.lap("backward")
        state.seen += source.batch
    rate = _schedule(state.done, config)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * (
            config.vector_lr if group["vectors"] else getattr(config, f"{kind.removesuffix('s')}_lr")
        )
    touched = [index for index, table in enumerate(state.bank.parameters()) if table.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(state.bank.parameters(), config.clip_norm, foreach=True))
    if touched and math.isfinite(norm):
        state.optimizer.step()
        tables, averages = list(state.bank.parameters()), list(state.average.parameters())
        decay = min(config.ema, (state.done + 1) / (state.done + 10))
        with torch.no_grad():
            torch._foreach_lerp_([averages[i] for i in touched], [tables[i].data for i in touched], 1 - decay)
    state.optimizer.zero_grad(set_to_none=True)
    clock.lap("optimizer")
    state.done += 1
    return {"update": state.done, "seen": state.seen, "task": kind, "loss": losses, "norm": norm}


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now


def _schedule(done: int, config: SupernetConfig) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    left = (config.updates - done) / max(1.0, config.decay * config.updates)
    return min(1.0, (done + 1) / max(1, config.warmup), left)


def validate(
    state: Supernet,
    sources: Mapping[str, Source],
    pools: Mapping[str, Pool],
    numbers: Mapping[str, list[int]],
) -> dict[str, Any]:
    """Step-0 metric of unseen networks, cut out of the averaged tables, by family."""
    found: dict[str, list[float]] = {}
    noise = Noise(torch.Generator().manual_seed(1))
    for name, pool in pools.items():
        for number in numbers[name]:
            target = pool.target(number, state.average)
            made, _ = make(state.average, target.parts, noise)
            family = pool.architecture(number).family
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                metric = sources[name].metric(target.model, {**target.constants, **made})
            found.setdefault(family, []).append(metric)
    means = {family: sum(values) / len(values) for family, values in sorted(found.items())}
    return {"update": state.done, "seen": state.seen, "validation": means}


def _line(state: Supernet, rows: list[dict[str, Any]], seconds: Mapping[str, float]) -> str:
    trained = [row for row in rows if "loss" in row]
    by_task: dict[str, list[float]] = {}
    for row in trained:
        by_task.setdefault(row["task"], []).extend(
            value for losses in row["loss"].values() for value in losses
        )
    losses = ", ".join(
        f"{task} {sum(values) / len(values):.3f}" for task, values in by_task.items() if values
    )
    total = sum(seconds.values()) or 1.0
    shares = " ".join(f"{phase} {value / total:.0%}" for phase, value in seconds.items())
    metrics = " ".join(f"{family} {value:.3f}" for family, value in rows[-1]["validation"].items())
    return f"{state.done} updates, {state.seen / 1e6:.2f} M | {losses} | {metrics} | {total:.0f} s: {shares}"


def _begin(
    config: SupernetConfig,
    folder: Path,
    pools: Mapping[str, Pool],
    graphs: Graphs,
    start: Path | None,
    progress: Callable[[str], None],
) -> Supernet:
    path = folder / STATE
    saved: dict[str, Any] = {}
    if path.exists():
        with safe_open(path, "pt") as file:
            saved = json.loads(file.metadata()["run"])
        if saved["config"] != asdict(config):
            changed = [name for name, value in asdict(config).items() if saved["config"].get(name) != value]
            raise ConfigError(
                f"{folder} holds a run with other settings ({', '.join(changed)}); choose another output folder"
            )
        sizes = saved["sizes"]
    elif start is not None:
        before = load_tables(start)
        sizes = before.to_slots()
    else:
        progress("tracing networks")
        sizes = slot_sizes(_networks(pools, graphs), config.rank or DENSE)
    bank = SlotBank(sizes)
    if not saved:
        if start is not None:
            bank.load_state_dict(before.state_dict())
        elif not config.rank:
            begin_with_base(bank, _networks(pools, graphs))
    average = SlotBank(sizes)
    average.load_state_dict(bank.state_dict())
    matrices = [table for table in bank.parameters() if table.dim() == 2]
    vectors = [table for table in bank.parameters() if table.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "vectors": False}, {"params": vectors, "vectors": True}],
        betas=(0.9, 0.99),
        weight_decay=0.0,
        foreach=True,
    )
    state = Supernet(bank, average, optimizer)
    progress(
        f"{len(bank.names)} slots, {sum(table.numel() for table in bank.parameters()) / 1e6:.2f} M numbers"
    )
    if saved:
        tensors = load_file(path)
        bank.load_state_dict(_part(tensors, "bank/"))
        average.load_state_dict(_part(tensors, "average/"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer/").items():
            number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.done, state.seen = saved["done"], saved["seen"]
        lines = (folder / LOG).read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["update"] <= state.done]
        write_whole(folder / LOG, "".join(kept), "free some space")
    return state


def _networks(
    pools: Mapping[str, Pool], graphs: Graphs
) -> Iterator[tuple[str, ComputationGraph, Sequence[Recipe]]]:
    for pool in pools.values():
        for numbers in pool.by_family.values():
            for number in numbers:
                graph = pool.graph(number)
                yield pool.family(number), graph, graphs.made_of(graph)


@torch.no_grad()
def begin_with_base(
    bank: SlotBank, networks: Iterable[tuple[str, ComputationGraph, Sequence[Recipe]]]
) -> None:
    """Let every matrix that is learned itself start as the base of the network that takes most of it.

    So heads that look a few tokens back, waves of positions and sizes beside the spread of the random numbers are there
    from the start (scripts/LOG.md has what that is worth).
    """
    areas = [0] * len(bank.names)
    own = Decoder(1, DecoderConfig())
    for family, graph, made_of in networks:
        parts = bank.parts(graph, made_of, family)
        larger = [
            part
            for part in parts
            if any(cut.dense and cut.height * cut.width > areas[cut.slot] for cut in part.cuts)
        ]
        if not larger:
            continue
        nodes = sum(spec.node is not None for spec in graph.params)
        base = own([Order(graph, torch.zeros(nodes, 1), 0)], learned=False)[0]
        for part in larger:
            matrix = as_matrix(part.recipe, base[part.recipe.spec.name]) / part.recipe.init.std
            for cut in part.cuts:
                if cut.height * cut.width <= areas[cut.slot] or cut.shares is not None:
                    continue
                areas[cut.slot] = cut.height * cut.width
                values = (matrix if cut.where is None else matrix[cut.where]).view(cut.height, cut.width)
                size = values.square().mean().sqrt()
                table = bank.rows[cut.slot]
                rows = torch.arange(cut.height) if cut.rows is None else cut.rows
                columns = torch.arange(cut.width) if cut.columns is None else cut.columns
                table[rows[:, None], columns] = values / size
                bank.gain[cut.slot] = size.log()


def save(state: Supernet, config: SupernetConfig, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the state and the log so that a killed run goes on from here."""
    with (folder / LOG).open("a") as log:
        log.write("".join(json.dumps(row) + "\n" for row in rows))
    tensors = {f"bank/{name}": value for name, value in state.bank.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in state.average.state_dict().items()}
    for number, entry in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in entry.items()}
    sizes = state.bank.to_slots()
    run = {"done": state.done, "seen": state.seen, "config": asdict(config), "sizes": sizes}
    with replacing(folder / STATE, "free some space") as part:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, part, {"run": json.dumps(run)}
        )
    save_tables(state.average, folder / "tables.safetensors")


def save_tables(bank: SlotBank, path: Path) -> None:
    """Write tables alone, in half precision."""
    sizes = bank.to_slots()
    tensors = {name: value.half().contiguous() for name, value in bank.state_dict().items()}
    with replacing(path, "free some space") as part:
        save_file(tensors, part, {"sizes": json.dumps(sizes)})


def load_tables(path: Path) -> SlotBank:
    """Read what ``save_tables`` wrote, or take the tables of a checkpoint with slots.

    Raises:
        CheckpointError: If it is neither.
    """
    if path.is_dir():
        decoder = GHN.from_pretrained(path).decoder
        if not isinstance(decoder, SlotDecoder):
            raise CheckpointError(
                f"{path} is a checkpoint without slots; begin with one that has them, or with none"
            )
        return decoder.bank
    if not path.is_file():
        raise CheckpointError(
            f"{path} doesn't exist; expected tables that a run wrote, or a checkpoint's folder"
        )
    with safe_open(path, "pt") as file:
        bank = SlotBank(json.loads(file.metadata()["sizes"]))
    bank.load_state_dict(_floats(load_file(path)))
    return bank


def merge(banks: Sequence[SlotBank]) -> SlotBank:
    """One bank with the tables of all: of a kind of place that several have, the last one's."""
    sizes = {key: sizes for bank in banks for key, sizes in bank.to_slots().items()}
    whole = SlotBank(dict(sorted(sizes.items())))
    numbers = {name: number for number, name in enumerate(whole.names)}
    with torch.no_grad():
        for bank in banks:
            for number, name in enumerate(bank.names):
                to = numbers[name]
                if whole.rows[to].shape == bank.rows[number].shape:
                    whole.rows[to].copy_(bank.rows[number])
                    whole.columns[to].copy_(bank.columns[number])
                    whole.share[to] = bank.share[number]
                    whole.gain[to] = bank.gain[number]
    return whole


def hypernetwork(bank: SlotBank, encoder: EncoderConfig | None = None) -> GHN:
    """A hypernetwork that decodes by a bank's slots; its encoder has learned nothing yet."""
    sizes = bank.to_slots()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = GHN(GHNConfig(encoder=encoder or EncoderConfig(), decoder=DecoderConfig(slots=sizes)))
    assert isinstance(net.decoder, SlotDecoder)
    net.decoder.bank.load_state_dict(bank.state_dict())
    return net.eval()


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def plot(folder: Path) -> None:
    """Draw the validation curves of a run's log."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    points = [row for row in rows if "validation" in row]
    families = sorted({family for row in points for family in row["validation"]})
    images = [family for family in families if points[-1]["validation"].get(family, 0) >= 0]
    texts = [family for family in families if family not in images]
    panels = [
        panel for panel in ((images, "accuracy at step 0"), (texts, "bits per byte at step 0")) if panel[0]
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels), 4.5), squeeze=False)
    for axis, (names, label) in zip(axes[0], panels, strict=True):
        axis.set_prop_cycle(color=plt.get_cmap("tab20").colors[: max(1, len(names))])
        for name in names:
            curve = [
                (row["seen"] / 1e6, abs(row["validation"][name]))
                for row in points
                if name in row["validation"]
            ]
            axis.plot(*zip(*curve, strict=True), label=name)
        axis.set_xlabel("target-images (millions)")
        axis.set_ylabel(label)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / PROGRESS, dpi=110)
    plt.close(figure)
