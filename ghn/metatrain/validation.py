"""Networks that were not trained on, cut out of the averaged tables: the figures of a run's curves."""

from collections.abc import Iterator, Mapping
from functools import partial
from statistics import fmean

import torch

from ghn.data.order import evaluation_batches
from ghn.decoder.slots import SlotBank
from ghn.metatrain.cutting import Noise, cut_out
from ghn.metatrain.processes import Processes
from ghn.metatrain.sampler import Sampler, Target
from ghn.tasks import Batch, Task, call, mean_loss

EXAMPLES = {"images": 1000, "text": 256}
"""Examples of the evaluation split that a network is measured on, by kind of data."""

AT_ONCE = {"images": 250, "text": 64}
"""Examples of a batch at most; images are judged under the statistics of theirs."""


def validate(
    average: SlotBank, tasks: Mapping[str, Task], samplers: Mapping[str, Sampler], processes: Processes
) -> dict[str, float]:
    """Mean metric before training of each family's validation networks; the processes share them."""
    noise = Noise(torch.Generator().manual_seed(1))
    networks = [(kind, number) for kind, sampler in samplers.items() for number in sampler.validation()]
    measurements = []
    for kind, number in processes.share(networks):
        noise.generator.manual_seed(-number)
        metric = measure(average, samplers[kind].target(number, average), tasks[kind], noise)
        measurements.append((samplers[kind].architecture(number).family, metric))
    families: dict[str, list[float]] = {}
    for family, metric in processes.gather(measurements):
        families.setdefault(family, []).append(metric)
    return {family: fmean(metrics) for family, metrics in sorted(families.items())}


@torch.no_grad()
def measure(bank: SlotBank, target: Target, task: Task, noise: Noise | None) -> float:
    """Metric of a network as it is cut out, under batch statistics."""
    weights, _ = cut_out(bank, target.params, noise)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return task.metric(*mean_loss(task, _batches(task), partial(call, target.network, weights=weights)))


def _batches(task: Task) -> Iterator[Batch]:
    """Of nearly equal sizes: a last one of a single image would have no statistics."""
    count = min(EXAMPLES[task.kind], len(task.evaluation))
    batches = -(-count // AT_ONCE[task.kind])
    return evaluation_batches(task.evaluation, -(-count // batches), count)
