"""What each process of a run is to do."""

from types import SimpleNamespace

import pytest

from ghn.metatrain.processes import Processes


def shares(items: list[str], count: int, work: list[float] | None) -> list[list[str]]:
    ranks = (SimpleNamespace(process_index=rank, num_processes=count) for rank in range(count))
    return [list(Processes(rank).share(items, work)) for rank in ranks]


def test_items_that_take_alike_go_around() -> None:
    assert shares(["a", "b", "c"], 2, None) == [["a", "c"], ["b"]]


def test_the_longest_go_first_and_each_to_the_least_busy() -> None:
    assert shares(["a", "b", "c", "d"], 2, [1.0, 5.0, 2.0, 2.5]) == [["b"], ["a", "c", "d"]]


@pytest.mark.parametrize("count", [1, 3])
def test_every_item_is_done_once(count: int) -> None:
    work = [3.0, 3.0, 1.0, 7.0, 2.0]
    parts = shares(list("abcde"), count, work)
    assert sorted(item for part in parts for item in part) == list("abcde")
