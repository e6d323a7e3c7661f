"""Which tensor is which parameter."""

from typing import Any

from torch import Tensor, nn

from ghn.errors import TraceError
from ghn.tensors import has_storage, storage_key


class ParameterRegistry:
    """Recognizes a model's parameters by identity or storage, never by name."""

    def __init__(self, model: nn.Module, skeleton: nn.Module) -> None:
        self.names: list[list[str]] = []
        """All names of each distinct parameter tensor."""
        self.tensors: list[Tensor] = []
        self._by_id: dict[int, int] = {}
        self._by_place: dict[tuple[Any, ...], int] = {}
        self._by_storage: dict[int, int] = {}
        for name, tensor in model.named_parameters(remove_duplicate=False):
            if isinstance(tensor, nn.UninitializedParameter):
                raise TraceError(
                    f"{name!r} of {type(model).__name__} has no shape yet (a lazy module); call the model once on real "
                    "inputs first"
                )
            self._add(name, tensor)
        # Some modules (ScriptModules among them) copy their tensors all the same: match those by name.
        numbers = {name: number for number, names in enumerate(self.names) for name in names}
        for name, tensor in skeleton.named_parameters(remove_duplicate=False):
            number = numbers.get(name)
            if number is not None and id(tensor) not in self._by_id:
                self._by_id[id(tensor)] = number
                self._by_storage.setdefault(storage_key(tensor), number)
                self.tensors.append(tensor)  # keeps the id alive

    def _add(self, name: str, tensor: Tensor) -> None:
        place = (
            (storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
            if has_storage(tensor)
            else None
        )
        number = self._by_id.get(id(tensor))
        if number is None and place is not None:
            number = self._by_place.get(place)
        if number is None:
            number = len(self.names)
            self.names.append([])
            self.tensors.append(tensor)
            if place is not None:
                self._by_place[place] = number
                owner = self._by_storage.setdefault(place[0], number)
                if owner != number:  # several parameters in one buffer: only exact views tell them apart
                    self._by_storage[place[0]] = -1
        self._by_id[id(tensor)] = number
        if name not in self.names[number]:
            self.names[number].append(name)

    def find(self, tensor: Tensor) -> int | None:
        """Number of the parameter a tensor is or aliases, or None."""
        number = self._by_id.get(id(tensor))
        if number is None and has_storage(tensor):
            storage = storage_key(tensor)
            if storage in self._by_storage:
                number = self._by_storage[storage]
                if number < 0:
                    place = (storage, tensor.storage_offset(), tensor.shape, tensor.stride())
                    number = self._by_place.get(place)
        return number
