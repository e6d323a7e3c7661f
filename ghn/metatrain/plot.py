"""``progress.png``: the validation curves of a run."""

from pathlib import Path
from typing import Any

from ghn.metatrain.log import LOG, read

PROGRESS = "progress.png"


def plot(folder: Path) -> None:
    """Draw the metric of each family over target-images, those of images and of texts apart, from a run's log."""
    points = [row for row in read(folder / LOG) if "validation" in row]
    if not points:
        return
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    families = sorted({family for row in points for family in row["validation"]})
    texts = [family for family in families if points[-1]["validation"].get(family, 0) < 0]
    images = [family for family in families if family not in texts]
    panels = [(images, "accuracy at step 0"), (texts, "bits per byte at step 0")]
    panels = [panel for panel in panels if panel[0]]
    figure, axes = plt.subplots(1, len(panels), figsize=(7.5 * len(panels), 4.5), squeeze=False)
    for axis, (names, label) in zip(axes[0], panels, strict=True):
        axis.set_prop_cycle(color=plt.get_cmap("tab20").colors)
        for name in names:
            axis.plot(*zip(*_curve(points, name), strict=True), label=name)
        axis.set_xlabel("target-images (millions)")
        axis.set_ylabel(label)
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / PROGRESS, dpi=110)
    plt.close(figure)


def _curve(points: list[dict[str, Any]], family: str) -> list[tuple[float, float]]:
    return [
        (row["seen"] / 1e6, abs(row["validation"][family])) for row in points if family in row["validation"]
    ]
