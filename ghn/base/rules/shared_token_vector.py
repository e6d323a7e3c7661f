"""What all tokens of a table share."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ghn.base.context import ParamContext
from ghn.base.init import Init, Pattern
from ghn.base.rule import Modifier


@dataclass(frozen=True, kw_only=True)
class SharedTokenVector(Modifier):
    """All tokens of a transformer without a table of positions share a vector, as large as what each has of its own.

    Something that no input changes does the work of biases, which such networks lack or start at zero; a table of
    positions brings it already.

    Evidence (`docs/log/shared-token-vector.md`), bits per byte at the end, two seeds (± 0.02):

    | start | Llama | Llama, tied | GPT-NeoX | GPT-2 | OPT |
    |---|---|---|---|---|---|
    | random | 3.540 | 3.545 | 3.639 | 3.830 | 3.798 |
    | base | 3.318 | 3.206 | 3.431 | 3.533 | 3.574 |
    | vector half as large | 3.155 | | 3.395 | | |
    | vector as large | 3.099 | 3.105 | 3.355 | 3.564 | 3.599 |
    """

    rules: ClassVar[frozenset[str] | None] = frozenset(
        {"sequence_table", "unnormalized_table", "vector_table"}
    )

    def applies(self, p: ParamContext, init: Init) -> bool:
        """Whether it is a table of tokens of a transformer that adds no table of positions."""
        transformer = p.traits.has_attention and not p.traits.has_positions
        return p.spec.role == "embedding" and transformer

    def modify(self, p: ParamContext, init: Init) -> Init:
        """The same, and one vector more that every row has."""
        columns = p.spec.shape[-1]
        ones = torch.ones(p.spec.numel // columns, 1)
        return replace(init, pattern=Pattern(ones, table=p.spec.name, columns=columns))
