"""Each process writes its own part of a distributed model; together they are the model of one process, bit for bit."""

import os
import subprocess
import sys
import textwrap

import pytest

COMMON = """
    import sys, torch, torch.distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from ghn.decoder import DecoderConfig
    from ghn.encoder import EncoderConfig
    from ghn.hypernetwork import GHN, GHNConfig

    torch.manual_seed(0)
    small = dict(encoder=EncoderConfig(hidden=16, layers=1, heads=2), decoder=DecoderConfig(hidden=16, rank=4))
    net = GHN(GHNConfig(**small)).eval()

    class Collectives(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "c10d" in func.namespace:
                self.seen.append(func)
            return func(*args, **(kwargs or {}))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(301, 160), nn.Linear(160, 700)
            self.conv, self.norm = nn.Conv1d(1, 37, 9, padding=4), nn.LayerNorm(700)
            self.swapped, self.bank = nn.Parameter(torch.randn(700, 96)), nn.Parameter(torch.randn(5, 96, 64))
            self.head = nn.Linear(64, 3)

        def forward(self, tokens):
            x = self.norm(self.mix(self.embed(tokens)))
            x = torch.bmm((x @ self.swapped).expand(5, -1, -1), self.bank).sum(0)
            return self.head(self.conv(x[:, None]).sum(1))

    inputs = torch.zeros(2, dtype=torch.long)
    plain = Net()
    net.init_(plain, inputs, seed=5)
    expected = dict(plain.named_parameters())
    dist.init_process_group("gloo")
    world = dist.get_world_size()

    def compare(model):
        for name, value in model.named_parameters():
            assert isinstance(value, DTensor), name
            assert torch.equal(value.full_tensor(), expected[name]), name

    def init_(model):
        net.init_(model, inputs, seed=5)
        compare(model)
        with Collectives() as collectives:
            net.init_(model, inputs, seed=5)
        assert not collectives.seen, collectives.seen
        with Collectives() as collectives:
            next(model.parameters()).full_tensor()
        assert collectives.seen
"""

FSDP = """
    model = Net()
    fully_shard(model.mix)
    fully_shard(model)
    init_(model)
    model(inputs).sum().backward()
"""

META = """
    with torch.device("meta"):
        model = Net()
    fully_shard(model.mix)
    fully_shard(model)
    init_(model)
    torch.testing.assert_close(model(inputs), plain(inputs))
    torch.optim.AdamW(model.parameters()).step()
"""

TENSOR_PARALLEL = """
    mesh = init_device_mesh("cpu", (world,))
    for dim in (0, 1):
        model = Net()
        for module in model.modules():
            for name, value in list(module._parameters.items()):
                if value is not None:
                    placement = Shard(dim) if value.dim() > dim else Replicate()
                    cut = distribute_tensor(value.data, mesh, [placement])
                    module._parameters[name] = nn.Parameter(cut)
        init_(model)
        compare(model)
"""

TWO_WAYS = """
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("data", "model"))
    model = Net()
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                other = Shard(1) if value.dim() > 1 else Replicate()
                module._parameters[name] = nn.Parameter(distribute_tensor(value.data, mesh, [Shard(0), other]))
    init_(model)
"""


WITHOUT_GROUP = """
    model = Net()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    dist.destroy_process_group()
    net.init_(model, inputs, seed=5)
    for name, value in model.named_parameters():
        assert torch.equal(value.to_local(), expected[name]), name
    dist.init_process_group("gloo")
"""

ACCELERATE = """
    from accelerate import Accelerator

    model = Net()
    model = Accelerator(cpu=True).prepare(model)
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    net.init_(model, inputs, seed=5)
    for name, value in model.module.named_parameters():
        assert torch.equal(value, expected[name]), name
    model(inputs).sum().backward()
"""

TRAINER = """
    from transformers import Trainer, TrainingArguments
    from ghn.models import load_model

    def make():
        size = dict(n_layer=1, n_embd=32, n_head=2, vocab_size=64, n_positions=16, bos_token_id=0, eos_token_id=0)
        model = load_model("hf:gpt2:AutoModelForCausalLM", **size)
        net.init_(model, seed=5)
        return model

    example = {"input_ids": torch.arange(8), "labels": torch.arange(8)}
    settings = TrainingArguments(
        sys.argv[1], max_steps=2, learning_rate=0.0, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    trainer = Trainer(model_init=make, args=settings, train_dataset=[example] * 32)
    trainer.train()
    assert trainer.accelerator.num_processes == world
    predicted = dict(make().named_parameters())
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, predicted[name]), name
"""


END = """
    import os
    dist.barrier()
    os._exit(0)  # all is asserted; about one in seventy processes that take their groups down is aborted by torch
"""


def run(tmp_path, script, processes):
    file = tmp_path / "job.py"
    file.write_text("".join(map(textwrap.dedent, (COMMON, script, END))))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launch, str(file), str(tmp_path / "out")],
        # A GPU, where there is one, would be taken for the mesh, and there may be fewer than processes.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("script", [FSDP, META], ids=["fsdp2", "fsdp2 from meta"])
def test_fully_sharded_models(tmp_path, script, processes):
    run(tmp_path, script, processes)


@pytest.mark.parametrize("processes", [2, 4])
def test_tensor_parallel_models(tmp_path, processes):
    run(tmp_path, TENSOR_PARALLEL, processes)


def test_models_cut_both_ways(tmp_path):
    run(tmp_path, TWO_WAYS, 4)


def test_no_communication_is_needed(tmp_path):
    """Not even a process group."""
    run(tmp_path, WITHOUT_GROUP, 1)


@pytest.mark.parametrize("script", [ACCELERATE, TRAINER], ids=["accelerate", "Trainer"])
def test_launchers(tmp_path, script):
    run(tmp_path, script, 2)
