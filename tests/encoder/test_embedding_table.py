"""The table knows the number of a parameter and nothing else."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from ghn.encoder import EmbeddingTable, EncoderConfig, build_encoder
from ghn.errors import ConfigError, ShapeError
from ghn.graph.features import encode_magnitude, plain_magnitude
from ghn.hypernetwork import GHN
from ghn.tracing.trace import trace


def chain(count: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(count)))


def test_equal_numbers_get_equal_embeddings_in_every_graph():
    table = build_encoder(EncoderConfig(kind="table", table=6))
    assert isinstance(table, EmbeddingTable)
    batch = Batch.from_data_list([trace(chain(count), torch.ones(1, 8)).to_pyg() for count in (1, 3, 2)])
    embeddings = table(batch)[batch.param_index]
    numbers = [0, 1, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert torch.equal(embeddings, table.entries.weight[numbers])
    others = torch.ones(batch.num_nodes, dtype=torch.bool).index_fill(0, batch.param_index, False)
    assert not table(batch)[others].any()


def test_a_target_with_more_parameters_than_entries_is_refused():
    net = GHN({"version": 1, "encoder": {"kind": "table", "table": 3}})
    with pytest.raises(ShapeError, match="4 parameter tensors, the table of embeddings 3"):
        net.predict(chain(2), torch.ones(1, 8))


def test_predictions_reach_the_table_with_gradients():
    net = GHN({"version": 1, "encoder": {"kind": "table"}})
    sum(values.square().sum() for values in net.predict(chain(2), torch.ones(1, 8)).values()).backward()
    assert net.encoder.entries.weight.grad[:4].abs().sum(dim=1).gt(0).all()
    assert not net.encoder.entries.weight.grad[4:].any()


def test_plain_sizes_are_the_encoded_ones():
    values = torch.rand(5, 7)
    torch.testing.assert_close(plain_magnitude(encode_magnitude(values)), values)
    net = GHN({"version": 1, "encoder": {"sizes": "plain"}})
    assert net.predict(chain(1), torch.ones(1, 8))["0.weight"].isfinite().all()


@pytest.mark.parametrize("setting", [{"kind": "list"}, {"sizes": "square"}, {"table": 0}])
def test_impossible_encoders_are_refused(setting):
    with pytest.raises(ConfigError):
        EncoderConfig(**setting)
