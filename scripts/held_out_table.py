"""Write what evaluate_init.py has left of held-out networks into README.md, docs/results.md and the model cards.

python scripts/held_out_table.py
"""

import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.evaluate.statistics import SHARES, is_significant, t_test
from ghn.spaces import LARGEST

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

NAMES = {
    "resnet-8x512": "ResNet-18",
    "resnet-16x512": "ResNet-34",
    "resnet-16x2048": "ResNet-50",
    "convnext-12x320": "ConvNeXt-atto",
    "convnext-12x384": "ConvNeXt-femto",
    "densenet-34x768": "DenseNet, 34 layers",
    "inverted-17x320": "MobileNetV2",
    "inverted-16x320": "EfficientNet-B0",
    "mobilenetv3-11x48": "MobileNetV3-small-050",
    "mobilenetv3-11x96": "MobileNetV3-small-100",
    "regnet-13x368": "RegNetX-200",
    "regnet-16x440": "RegNetY-400",
    "ghostnet-16x160": "GhostNet",
    "starnet-15x192": "StarNet-S1",
    "vit-12x192": "ViT, 12 × 192",
    "vit-12x384": "ViT, 12 × 384",
    "deit_distilled-12x192": "DeiT distilled, 12 × 192",
    "cait-12x192": "CaiT, 12 × 192",
    "swin-6x192": "Swin, 6 × 192",
    "swin-6x384": "Swin, 6 × 384",
    "poolformer-12x512": "PoolFormer-S12",
    "mobilevit-16x80": "MobileViT-XXS",
    "mixer-6x128": "MLP-Mixer, 6 × 128",
    "mixer-8x512": "MLP-Mixer, 8 × 512",
    "gpt2-6x384": "GPT-2, 6 × 384 (bits per byte)",
    "gpt2-12x384": "GPT-2, 12 × 384 (bits per byte)",
    "llama-10x384": "Llama, 10 × 384 (bits per byte)",
    "opt-6x256": "OPT, 6 × 256 (bits per byte)",
    "gpt_neox-6x256": "GPT-NeoX, 6 × 256 (bits per byte)",
}
"""Of the networks, in the order of the tables."""

KINDS = {
    "convolutional networks": "resnet convnext densenet inverted regnet mobilenetv3 ghostnet starnet",
    "vision transformers and mixers": "vit deit_distilled cait swin mobilevit poolformer mixer",
    "language models": "gpt2 llama gpt_neox opt",
}
"""Families of the summaries' rows."""

OF_SMALL = {
    "Of families whose results here prompted a change of the base, which was chosen on other models": (
        "cait deit_distilled poolformer"
    ),
    "Larger than those that were used": (
        "resnet convnext densenet inverted mobilenetv3-11x96 mixer-8x512 vit-12x384"
    ),
    "Used while base, trust or objectives were chosen, or smaller ones of the family were": (
        "mixer-6x128 vit-12x192 swin mobilevit regnet mobilenetv3-11x48 ghostnet starnet gpt2 llama opt gpt_neox"
    ),
}
"""Families or networks by what was known of them: see "What was chosen on what" in ghn-small's card."""

OTHERS = ("orthogonal", "mimetic")
"""Arms of ghn-small's table beside random and ghn."""

BRIEF_HEAD = "| held-out networks | random | rules alone | `ghn` | other data: random | rules alone | `ghn` |"

SUMMARY_HEAD = (
    "| held-out networks | random | base | ghn | above random after 10, 30, 100 % of the steps (significantly) "
    "| above the base after 10, 30, 100 % (significantly) | random's end reached after (median) |"
)

TRANSFER_HEAD = SUMMARY_HEAD.replace("held-out networks", "held-out networks, on other data")

SLOTS_HEAD = (
    "| network | random | base | ghn-slots | after 10 % of the steps "
    "| other data: random | base | ghn-slots | after 10 % |"
)

SMALL_HEAD = (
    "| model | random (the zoo's own) | orthogonal | mimetic | ghn | at 10 % of the steps "
    "| random's final at |"
)


class HeldOut:
    """An evaluation of held-out networks.

    Args:
        folder: With ``models.csv`` and ``curves.csv``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models = pd.read_csv(folder / "models.csv")
        keys = ["model", "dataset", "arm"]
        self._curves = pd.read_csv(folder / "curves.csv")
        tuned = self._curves.merge(self._models[[*keys, "lr", "transfer", "steps"]], on=[*keys, "lr"])
        tuned["share"] = tuned["step"] / tuned["steps"]
        self._seeds = tuned.set_index(["transfer", "model", "arm"])
        self._rows = self._models.set_index(["transfer", "model", "arm"]).sort_index()

    @property
    def names(self) -> list[str]:
        """The networks, in the order of the tables."""
        measured = {model for transfer, model, _ in self._rows.index if not transfer}
        return [name for name in NAMES if name in measured]

    def has(self, model: str, arm: str, transfer: bool = False) -> bool:
        """Whether an arm was run."""
        return (transfer, model, arm) in self._rows.index

    def row(self, model: str, arm: str, transfer: bool = False) -> pd.Series:
        """What ``models.csv`` has of an arm."""
        return self._rows.loc[(transfer, model, arm)]

    def of(self, families: str) -> list[str]:
        """The networks of some families, or of some names."""
        wanted = families.split()
        return [name for name in self.names if name in wanted or self.row(name, "ghn")["family"] in wanted]

    def metric(self, model: str, arm: str, share: float, transfer: bool = False) -> pd.Series:
        """Metric of every seed at the arm's best rate, after a share of the steps."""
        rows = self._seeds.loc[[(transfer, model, arm)]]
        return rows[(rows["share"] - share).abs() < 1e-9].set_index("seed")["metric"]

    def difference(
        self, model: str, against: str, share: float = 1.0, transfer: bool = False, arm: str = "ghn"
    ) -> tuple[float, bool]:
        """Mean difference of an arm to another over the seeds, and whether it is significant."""
        first, second = (self.metric(model, name, share, transfer) for name in (arm, against))
        differences = (first - second).dropna()
        return float(differences.mean()), is_significant(t_test(differences))

    def first_seed(self) -> dict[str, dict[str, dict[float, float]]]:
        """Final metrics of the first seed on the data that was trained on, by model, arm and rate."""
        rows = self._curves[self._curves["seed"] == 0]
        rows = rows.merge(self._models[~self._models["transfer"]][["model", "dataset"]].drop_duplicates())
        rows = rows.sort_values("step").groupby(["model", "arm", "lr"])["metric"].last()
        finals: dict[str, dict[str, dict[float, float]]] = {}
        for (model, arm, rate), metric in rows.items():
            finals.setdefault(model, {}).setdefault(arm, {})[rate] = metric
        return finals


def brief(results: HeldOut) -> str:
    """README's table: how they end."""
    lines = _head(BRIEF_HEAD)
    for kind, families in KINDS.items():
        models = results.of(families)
        cells = [_ends(results, models, transfer) for transfer in (False, True)]
        lines.append(f"| {_title(results, kind, models)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(results: HeldOut, transfer: bool = False) -> str:
    """A few lines for all networks, by kind, as Markdown."""
    lines = _head(TRANSFER_HEAD if transfer else SUMMARY_HEAD)
    for kind, families in KINDS.items():
        models = results.of(families)
        cells = [
            _ends(results, models, transfer),
            *(_above(results, models, arm, transfer) for arm in ("random", "base")),
            _pace(results, models, transfer),
        ]
        lines.append(f"| {_title(results, kind, models)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def transferred(results: HeldOut) -> str:
    """``summary`` of data that was not trained on."""
    return summary(results, transfer=True)


def slots_table(results: HeldOut) -> str:
    """Every network: ends on both kinds of data, * where ``ghn`` differs significantly from the base."""
    seen = [name for name in results.names if results.row(name, "ghn")["family"] in LARGEST]
    groups = {
        "Deeper or wider than any that were trained on": seen,
        "Of families that were not": [name for name in results.names if name not in seen],
    }
    lines = _head(SLOTS_HEAD)
    for title, models in groups.items():
        lines.append(_divider(title, SLOTS_HEAD))
        for model in models:
            cells = []
            for transfer in (False, True):
                rows = [results.row(model, arm, transfer) for arm in ("random", "base", "ghn")]
                star = "*" if results.difference(model, "base", transfer=transfer)[1] else ""
                cells += [f"{_figure(row, 'metric_100')} ± {_figure(row, 'sem_100')}" for row in rows]
                cells[-1] += star
                cells.append(", ".join(_figure(row, "metric_10") for row in rows))
            lines.append(f"| {NAMES[model]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def small_table(results: HeldOut) -> str:
    """ghn-small's table: accuracy in percent, or bits per byte; * where p < 0.05 against random."""
    lines = _head(SMALL_HEAD)
    for title, families in OF_SMALL.items():
        lines.append(_divider(title, SMALL_HEAD))
        for model in results.of(families):
            random, ghn = results.row(model, "random"), results.row(model, "ghn")
            steps = ghn["steps_to_random_final"]
            pace = "–" if math.isnan(steps) else f"{steps / ghn['steps']:.0%}".replace("%", " %")
            finals = " | ".join(_final(results, model, arm) for arm in ("random", *OTHERS, "ghn"))
            early = " → ".join(_figure(row, "metric_10") for row in (random, ghn))
            lines.append(f"| {NAMES[model]} | {finals} | {early} | {pace} |")
    return "\n".join(lines)


def same_rate(results: HeldOut) -> str:
    """How often ``ghn`` ends higher at the same learning rate, without tuning of its own; first seed."""
    pairs, at_best = [], []
    for arms in results.first_seed().values():
        random, ghn = arms["random"], arms["ghn"]
        best = max(random, key=lambda rate: random[rate])
        pairs += [ghn[rate] > metric for rate, metric in random.items() if rate in ghn]
        at_best += [ghn[best] > random[best]] if best in ghn else []
    return (
        f"higher in {sum(pairs)} of {len(pairs)} pairs of model and rate, "
        f"and on {sum(at_best)} of {len(at_best)} models at random's best"
    )


def other_starts(results: HeldOut) -> str:
    """How orthogonal and mimetic initialization end, against random and against ``ghn``."""
    sentences = []
    for arm in OTHERS:
        models = [model for model in results.names if _changes(results, model, arm)]
        found = {model: results.difference(model, "random", arm=arm) for model in models}
        significant = [difference for difference, sure in found.values() if sure]
        above = sum(difference > 0 for difference in significant)
        images = [100 * found[model][0] for model in models if not _is_text(results, model)]
        below = sum(results.difference(model, "ghn", arm=arm)[0] < 0 for model in models)
        sentences.append(
            f"{arm} initialization, run on {len(models)} models, ends significantly above random on {above} and "
            f"significantly below on {len(significant) - above} "
            f"({fmean(images):+.1f} ± {stdev(images) / math.sqrt(len(images)):.1f} points on average over "
            f"{len(images)} of images), "
            f"and below `ghn` on {below}"
        )
    return "; ".join(sentences)


def _head(head: str) -> list[str]:
    return [head, "|---" * (head.count(" | ") + 1) + "|"]


def _divider(title: str, head: str) -> str:
    return f"| *{title}* |" + " |" * head.count(" | ")


def _title(results: HeldOut, kind: str, models: Sequence[str]) -> str:
    unit = "bits per byte" if _is_text(results, models[0]) else "accuracy in %"
    return f"{len(models)} {kind} ({unit})"


def _ends(results: HeldOut, models: Sequence[str], transfer: bool = False) -> str:
    """Cells of the three arms' means at the end."""
    means = [
        fmean(results.row(model, arm, transfer)["metric_100"] for model in models)
        for arm in ("random", "base", "ghn")
    ]
    return " | ".join(f"{-mean:.2f}" if mean < 0 else f"{100 * mean:.1f}" for mean in means)


def _above(results: HeldOut, models: Sequence[str], against: str, transfer: bool = False) -> str:
    """On how many networks ``ghn`` is above an arm on the way, and at the end significantly."""
    found = [[results.difference(model, against, share, transfer) for model in models] for share in SHARES]
    counts = ", ".join(str(sum(difference > 0 for difference, _ in share)) for share in found)
    return f"{counts} ({sum(difference > 0 and sure for difference, sure in found[-1])})"


def _pace(results: HeldOut, models: Sequence[str], transfer: bool) -> str:
    """After which share of the steps ``ghn`` reaches random's end, the median; a dash if most never do."""
    rows = [results.row(model, "ghn", transfer) for model in models]
    share = pd.Series([row["steps_to_random_final"] / row["steps"] for row in rows]).fillna(math.inf).median()
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def _is_text(results: HeldOut, model: str) -> bool:
    return bool(results.row(model, "ghn")["metric_100"] < 0)


def _changes(results: HeldOut, model: str, arm: str) -> bool:
    """Whether an arm was run and starts from other weights than random; mimetic does so where there is attention."""
    if not results.has(model, arm):
        return False
    arms = [results.row(model, name) for name in (arm, "random")]
    return any(arms[0][column] != arms[1][column] for column in ("metric_10", "metric_100"))


def _final(results: HeldOut, model: str, arm: str) -> str:
    if not results.has(model, arm) or (arm == "mimetic" and not _changes(results, model, arm)):
        return "–"
    row = results.row(model, arm)
    star = "*" if arm != "random" and results.difference(model, "random", arm=arm)[1] else ""
    return f"{_figure(row, 'metric_100')} ± {_figure(row, 'sem_100')}{star}"


def _figure(row: pd.Series, column: str) -> str:
    value = abs(row[column])
    return f"{value:.2f}" if row["metric_100"] < 0 else f"{100 * value:.1f}"


def _whole_table(head: str) -> str:
    return rf"{re.escape(head)}.*?(?=\n\n)"


SAME_RATE = r"higher in \d+ of \d+ pairs.*? at random's best"
OTHER_STARTS = r"orthogonal initialization, run on .*?; mimetic .*?and below `ghn` on \d+"

SLOTS, SMALL = RESULTS / "held-out-slots", RESULTS / "held-out-cpu"
"""Evaluations of ghn-slots, and of ghn-small."""

SLOTS_CARD = ROOT / "checkpoints" / "ghn-slots" / "README.md"

Writer = Callable[[HeldOut], str]

PAGES: dict[Path, tuple[Path, dict[str, Writer]]] = {
    ROOT / "README.md": (SLOTS, {_whole_table(BRIEF_HEAD): brief}),
    ROOT / "docs" / "results.md": (
        SLOTS,
        {
            _whole_table(SUMMARY_HEAD): summary,
            _whole_table(TRANSFER_HEAD): transferred,
            SAME_RATE: same_rate,
        },
    ),
    SLOTS_CARD: (SLOTS, {_whole_table(SLOTS_HEAD): slots_table}),
    ROOT / "checkpoints" / "ghn-small" / "README.md": (
        SMALL,
        {_whole_table(SMALL_HEAD): small_table, SAME_RATE: same_rate, OTHER_STARTS: other_starts},
    ),
}
"""Parts of each page that come from an evaluation, and what writes them."""


def refresh(path: Path) -> str:
    """A page with those parts as they are now."""
    page = path.read_text()
    folder, parts = PAGES[path]
    results = HeldOut(folder)
    for pattern, write in parts.items():
        matches = re.findall(pattern, page, flags=re.DOTALL)
        if len(matches) != 1:
            raise ValueError(f"{pattern} is {len(matches)} times in {path}; expected once")
        page = page.replace(matches[0], write(results))
    return page


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(refresh(path))
