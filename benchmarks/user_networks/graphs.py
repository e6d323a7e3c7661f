"""Graph networks of torch-geometric, without normalization as in its examples."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINEConv, SAGEConv

from user_networks.data import generator
from user_networks.tabular import mlp
from user_networks.task import Batch, Family, Parts, Task, split

network = Family("graphs", (1e-3, 3e-3, 1e-2))

NODES, CLASSES, FEATURES = 256, 4, 32


def _communities() -> tuple[Tensor, Tensor, Tensor]:
    """A graph of four communities: noisy features, edges, and the communities to be found."""
    g = generator()
    classes = torch.arange(NODES) % CLASSES
    chance = torch.where(classes[:, None] == classes, 0.06, 0.01)
    edges = (torch.rand(NODES, NODES, generator=g) < chance).triu(1).nonzero().T
    centres = torch.randn(CLASSES, FEATURES, generator=g)
    features = 0.5 * centres[classes] + torch.randn(NODES, FEATURES, generator=g)
    return features, torch.cat([edges, edges.flip(0)], dim=1), classes


class Nodes(nn.Module):
    """Two or more graph convolutions with ReLU between them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Logits of each node."""
        for number, layer in enumerate(self.layers):
            x = layer(F.relu(x) if number else x, edges)
        return x


def _nodes(kind: type[nn.Module], depth: int = 2, heads: int = 1) -> Task:
    features, edges, classes = _communities()
    train, test = split(torch.arange(NODES), test=0.5)
    options = {"heads": heads} if heads > 1 else {}

    def build() -> nn.Module:
        hidden = [kind(32 * heads, 32, **options) for _ in range(depth - 2)]
        return Nodes(kind(FEATURES, 32, **options), *hidden, kind(32 * heads, CLASSES))

    def loss(model: nn.Module, nodes: Tensor) -> Tensor:
        return F.cross_entropy(model(features, edges)[nodes], classes[nodes])

    def parts(model: nn.Module, nodes: Tensor) -> Parts:
        return [(model, (features, edges))]

    return Task(build=build, loss=loss, parts=parts, train=train, test=test, steps=50, size=128)


@network
def gcn() -> Task:
    """Two graph convolutions that find communities."""
    return _nodes(GCNConv)


@network
def gcn_deep() -> Task:
    """Six graph convolutions that find communities."""
    return _nodes(GCNConv, depth=6)


@network
def gat() -> Task:
    """Two graph attentions of four heads that find communities."""
    return _nodes(GATConv, heads=4)


@network
def sage() -> Task:
    """Two GraphSAGE layers that find communities."""
    return _nodes(SAGEConv)


def _molecules(count: int = 512, atoms: int = 8) -> tuple[Batch, Batch]:
    """Rings with chords of so many atoms each: atoms, bonds (the same places in every one), and a property."""
    g = generator()
    kinds, bonds = (
        torch.randint(10, (count, atoms), generator=g),
        torch.randint(4, (count, 2 * atoms), generator=g),
    )
    values, strengths = torch.randn(10, generator=g), torch.rand(4, generator=g)
    ends = _bonds(atoms)
    pairs = values[kinds[:, ends[0]]] * values[kinds[:, ends[1]]] * strengths[bonds]
    return split(kinds, bonds, pairs.sum(1, keepdim=True) / 4)


def _bonds(atoms: int) -> Tensor:
    ring = torch.arange(atoms)
    return torch.stack([ring.repeat(2), torch.cat([ring.roll(-1), ring.roll(-3)])])


class Molecules(nn.Module):
    """Atoms and bonds are looked up, GINE layers pass messages, their sum is read."""

    def __init__(self, layers: int = 4, width: int = 48) -> None:
        super().__init__()
        self.atoms, self.bonds = nn.Embedding(10, width), nn.Embedding(4, width)
        self.layers = nn.ModuleList(GINEConv(mlp(width, 2 * width, width)) for _ in range(layers))
        self.head = nn.Linear(width, 1)

    def forward(self, kinds: Tensor, edges: Tensor, bonds: Tensor, molecules: int) -> Tensor:
        """A number for each molecule."""
        hidden, strengths = self.atoms(kinds), self.bonds(bonds)
        for layer in self.layers:
            hidden = F.relu(layer(hidden, edges, strengths))
        return self.head(hidden.view(molecules, -1, hidden.shape[1]).sum(1))


def _joined(kinds: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Several molecules as one graph."""
    molecules, atoms = kinds.shape
    ends = _bonds(atoms)[:, None] + atoms * torch.arange(molecules)[:, None]
    edges = torch.cat([ends.flatten(1), ends.flatten(1).flip(0)], dim=1)
    return kinds.flatten(), edges, bonds.flatten().repeat(2), molecules


@network
def gine_molecules() -> Task:
    """Four GINE layers without normalization, a property of generated molecules."""
    train, test = _molecules()
    return Task(
        build=Molecules,
        loss=lambda model, kinds, bonds, y: F.mse_loss(model(*_joined(kinds, bonds)), y),
        parts=lambda model, kinds, bonds, y: [(model, _joined(kinds, bonds))],
        train=train,
        test=test,
        size=32,
    )
