"""Write what evaluate_init.py has left of held-out models into README.md, docs/results.md and the model card.

python scripts/held_out_table.py
"""

import csv
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "held-out-cpu" / "models.csv"

GROUPS = {
    "Of families whose results here prompted a change of the base, which was chosen on other models": {
        "cait-12x192": "CaiT, 12 × 192",
        "deit_distilled-12x192": "DeiT distilled, 12 × 192",
        "poolformer-12x512": "PoolFormer-S12",
    },
    "Larger than those that were used": {
        "resnet-8x512": "ResNet-18",
        "resnet-16x512": "ResNet-34",
        "resnet-16x2048": "ResNet-50",
        "convnext-12x320": "ConvNeXt-atto",
        "convnext-12x384": "ConvNeXt-femto",
        "densenet-34x768": "DenseNet, 34 layers",
        "inverted-17x320": "MobileNetV2",
        "inverted-16x320": "EfficientNet-B0",
        "mobilenetv3-11x96": "MobileNetV3-small-100",
        "mixer-8x512": "MLP-Mixer, 8 × 512",
        "vit-12x384": "ViT, 12 × 384",
    },
    "Used while base, trust or objectives were chosen, or smaller ones of the family were": {
        "mixer-6x128": "MLP-Mixer, 6 × 128",
        "vit-12x192": "ViT, 12 × 192",
        "swin-6x192": "Swin, 6 × 192",
        "swin-6x384": "Swin, 6 × 384",
        "mobilevit-16x80": "MobileViT-XXS",
        "regnet-13x368": "RegNetX-200",
        "regnet-16x440": "RegNetY-400",
        "mobilenetv3-11x48": "MobileNetV3-small-050",
        "ghostnet-16x160": "GhostNet",
        "starnet-15x192": "StarNet-S1",
        "gpt2-6x384": "GPT-2, 6 × 384 (bits per byte)",
        "gpt2-12x384": "GPT-2, 12 × 384 (bits per byte)",
        "llama-10x384": "Llama, 10 × 384 (bits per byte)",
        "opt-6x256": "OPT, 6 × 256 (bits per byte)",
        "gpt_neox-6x256": "GPT-NeoX, 6 × 256 (bits per byte)",
    },
}
"""Models by what was known of them: see "What was chosen on what" in the card."""

KINDS = {
    "convolutional networks": "resnet convnext densenet inverted regnet mobilenetv3 ghostnet starnet",
    "vision transformers and mixers": "vit deit_distilled cait swin mobilevit poolformer mixer",
    "language models": "gpt2 llama gpt_neox opt",
}
"""Families of the summary's rows."""

OTHERS = ("orthogonal", "mimetic")
"""Arms beside random and ghn."""

SHORT_HEAD = (
    "| held-out models | random → ghn, mean at the end | higher at 10, 30, 100 % of the steps "
    "| significantly at the end | steps to reach random's final (median) | on other data: higher, significantly |"
)

BRIEF_HEAD = (
    "| held-out networks | random, at the end | `ghn`, at the end | higher on (significantly, p < 0.05) "
    "| random's end reached (median) |"
)

HEAD = "| model | random (the zoo's own) | orthogonal | mimetic | ghn | at 10 % of the steps | random's final at |"


def table() -> str:
    """The table as Markdown: accuracy in percent, or bits per byte; * where p < 0.05 against random."""
    rows = _rows()
    columns = HEAD.count(" | ") + 1
    lines = [HEAD, "|---" * columns + "|"]
    for title, models in GROUPS.items():
        lines.append(f"| *{title}* |" + " |" * (columns - 1))
        for model, name in models.items():
            random, ghn = rows[model, "random"], rows[model, "ghn"]
            steps = ghn["steps_to_random_final"]
            pace = f"{float(steps) / float(ghn['steps']):.0%}".replace("%", " %") if steps else "–"
            finals = " | ".join(_final(rows, model, arm) for arm in ("random", *OTHERS, "ghn"))
            early = " → ".join(_figure(row, "metric_10") for row in (random, ghn))
            lines.append(f"| {name} | {finals} | {early} | {pace} |")
    return "\n".join(lines)


def summary() -> str:
    """A few lines for all models, by kind, as Markdown."""
    main, transfer = _rows(), _rows(transfer=True)
    columns = SHORT_HEAD.count(" | ") + 1
    lines = [SHORT_HEAD, "|---" * columns + "|"]
    for kind, families in KINDS.items():
        models = [
            model for model, arm in main if arm == "ghn" and main[model, arm]["family"] in families.split()
        ]
        ghn, random, other = (
            [rows[model, arm] for model in models]
            for rows, arm in ((main, "ghn"), (main, "random"), (transfer, "ghn"))
        )
        means = [fmean(float(row["metric_100"]) for row in arm) for arm in (random, ghn)]
        text = means[0] < 0
        figures = " → ".join(f"{-mean:.2f}" if text else f"{100 * mean:.1f}" for mean in means)
        higher = [
            sum(float(row[column]) > float(start[column]) for row, start in zip(ghn, random, strict=True))
            for column in ("metric_10", "metric_30", "metric_100")
        ]
        pace = median(float(row["steps_to_random_final"] or math.inf) / float(row["steps"]) for row in ghn)
        lines.append(
            f"| {len(models)} {kind} ({'bits per byte' if text else 'accuracy in %'}) | {figures} | "
            f"{', '.join(map(str, higher))} | {_count(ghn, _significantly_above)} | {100 * pace:.0f} % | "
            f"{_count(other, _above)}, {_count(other, _significantly_above)} |"
        )
    return "\n".join(lines)


def brief() -> str:
    """The same for README: how they end, on how many models, and when random's final is reached."""
    lines = [BRIEF_HEAD, "|---" * (BRIEF_HEAD.count(" | ") + 1) + "|"]
    for line in summary().splitlines()[2:]:
        models, ends, higher, significantly, pace, _ = line.strip("| ").split(" | ")
        random, ghn = ends.split(" → ")
        count = models.split()[0]
        lines.append(
            f"| {models} | {random} | {ghn} | {higher.split(', ')[-1]} of {count} ({significantly}) "
            f"| after {pace} |"
        )
    return "\n".join(lines)


def same_rate() -> str:
    """How often ``ghn`` ends higher at the same learning rate, without tuning of its own; first seed."""
    with (RESULTS.parent / "curves.csv").open(newline="") as file:
        finals = {
            (row["model"], row["arm"], float(row["lr"])): float(row["metric"])  # the last step's is the last
            for row in csv.DictReader(file)
            if row["seed"] == "0" and row["dataset"] in ("cifar10", "english")
        }
    random: dict[str, dict[float, float]] = {}
    for (model, arm, rate), metric in finals.items():
        if arm == "random":
            random.setdefault(model, {})[rate] = metric
    higher = {
        (model, rate): finals[model, "ghn", rate] > metric
        for model, rates in random.items()
        for rate, metric in rates.items()
        if (model, "ghn", rate) in finals
    }
    best = [(model, max(rates, key=lambda rate: rates[rate])) for model, rates in random.items()]
    at_best = [higher[run] for run in best if run in higher]
    return (
        f"higher in {sum(higher.values())} of {len(higher)} pairs of model and rate, "
        f"and on {sum(at_best)} of {len(at_best)} models at random's best"
    )


def other_starts() -> str:
    """How orthogonal and mimetic initialization end, against random and against ``ghn``."""
    rows = _rows()
    sentences = []
    for arm in OTHERS:
        models = [model for model, other in rows if other == arm and _differs(rows, model, arm)]
        ends = {
            model: [float(rows[model, each]["metric_100"]) for each in ("random", arm, "ghn")]
            for model in models
        }
        significant = [model for model in models if _significant(rows[model, arm])]
        above = sum(ends[model][1] > ends[model][0] for model in significant)
        images = [100 * (end - random) for random, end, _ in ends.values() if end > 0]
        sentences.append(
            f"{arm} initialization, run on {len(models)} models, ends significantly above random on {above} and "
            f"significantly below on {len(significant) - above} "
            f"({fmean(images):+.1f} ± {stdev(images) / math.sqrt(len(images)):.1f} points on average over "
            f"{len(images)} of images), "
            f"and below `ghn` on {sum(end < ghn for _, end, ghn in ends.values())}"
        )
    return "; ".join(sentences)


def _rows(transfer: bool = False) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the data that was trained on, or of the other, by model and arm."""
    with RESULTS.open(newline="") as file:
        return {
            (row["model"], row["arm"]): row
            for row in csv.DictReader(file)
            if row["transfer"] == str(transfer)
        }


def _differs(rows: dict[tuple[str, str], dict[str, str]], model: str, arm: str) -> bool:
    """Whether an arm starts from other weights than random; mimetic does so where there is attention."""
    return any(
        rows[model, arm][column] != rows[model, "random"][column] for column in ("metric_10", "metric_100")
    )


def _final(rows: dict[tuple[str, str], dict[str, str]], model: str, arm: str) -> str:
    if (model, arm) not in rows or (arm == "mimetic" and not _differs(rows, model, arm)):
        return "–"
    row = rows[model, arm]
    return f"{_figure(row, 'metric_100')} ± {_figure(row, 'sem_100')}{'*' if _significant(row) else ''}"


def _count(rows: Sequence[dict[str, str]], test: Callable[[dict[str, str]], bool]) -> int:
    return sum(map(test, rows))


def _above(row: dict[str, str]) -> bool:
    """Whether it ended higher than random."""
    return float(row["difference"]) > 0


def _significantly_above(row: dict[str, str]) -> bool:
    return _above(row) and _significant(row)


def _significant(row: dict[str, str]) -> bool:
    """Whether an arm differs significantly from random."""
    return bool(row["p_value"]) and float(row["p_value"]) < 0.05


def _figure(row: dict[str, str], column: str) -> str:
    text = float(row["metric_100"]) < 0
    value = abs(float(row[column]))
    return f"{value:.2f}" if text else f"{100 * value:.1f}"


TABLE = rf"{re.escape(HEAD)}.*?(?=\n\n)"
SUMMARY = rf"{re.escape(SHORT_HEAD)}.*?(?=\n\n)"
BRIEF = rf"{re.escape(BRIEF_HEAD)}.*?(?=\n\n)"
SAME_RATE = r"higher in \d+ of \d+ pairs.*? at random's best"
OTHER_STARTS = r"orthogonal initialization, run on .*?; mimetic .*?and below `ghn` on \d+"

PAGES = {
    ROOT / "README.md": {BRIEF: brief},
    ROOT / "docs" / "results.md": {SUMMARY: summary, SAME_RATE: same_rate},
    ROOT / "checkpoints" / "ghn-small" / "README.md": {
        TABLE: table,
        SAME_RATE: same_rate,
        OTHER_STARTS: other_starts,
    },
}
"""Parts of each page that come from the results, and what writes them."""


def refresh(path: Path) -> str:
    """A page with those parts as they are now."""
    page = path.read_text()
    for pattern, write in PAGES[path].items():
        matches = re.findall(pattern, page, flags=re.DOTALL)
        if len(matches) != 1:
            raise ValueError(f"{pattern} is {len(matches)} times in {path}; expected once")
        page = page.replace(matches[0], write())
    return page


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(refresh(path))
