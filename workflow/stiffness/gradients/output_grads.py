"""The output gradients that backward passes start from, known as soon as a pass has the outputs.

``stiffness.gradients.arithmetic`` says how they are computed.
"""

import torch

from stiffness.errors import StiffnessError
from stiffness.gradients.arithmetic import Loss, output_gradients


class OutputGrads:
    """The output gradients of all examples, computed when a pass has an example's outputs.

    They are stored where they fit ``room``, and computed anew in every pass where they do not: a
    language model's outputs are as large as its vocabulary for each token. The log-norms of all
    examples stay.

    Attributes:
        log_norms: float64 [N]; 0 in the arithmetic "naive".

    Args:
        room: bytes for storing them.
    """

    def __init__(
        self,
        targets: torch.Tensor,
        loss: Loss = "cross_entropy",
        arithmetic: str = "exact",
        room: int = 2**28,
    ) -> None:
        self.targets, self.loss, self.arithmetic, self.room = targets, loss, arithmetic, room
        self.log_norms = torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
        self._values: torch.Tensor | None = None
        # On the CPU: whether a slice is known then needs no wait for a GPU.
        self._known = torch.zeros(len(targets), dtype=torch.bool)

    @classmethod
    def given(cls, values: torch.Tensor) -> "OutputGrads":
        """Output gradients that are ``values`` [N, ...] and come from no loss."""
        given = cls(values)
        given._values, given._known = values, torch.ones(len(values), dtype=torch.bool)
        return given

    def __len__(self) -> int:
        return len(self.targets)

    def known(self, rows: slice | torch.Tensor) -> bool:
        """Whether the output gradients of the examples in ``rows`` are stored."""
        return bool(self._known[_on_host(rows)].all())

    def of(self, rows: slice | torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
        """The output gradients of the examples in ``rows``, in the dtype of their outputs.

        Args:
            outputs: of these examples [n, ...]; not needed where ``known(rows)``.

        Raises:
            StiffnessError: outputs that are not finite, or do not fit the loss or the targets.
        """
        if self._values is not None and self.known(rows):
            return self._values[rows]
        assert outputs is not None
        outputs = outputs.detach()
        values = self._computed(rows, outputs)
        if self._values is None and len(self) * values[0].nbytes <= self.room:
            self._values = values.new_zeros(len(self), *values.shape[1:])
        if self._values is not None and self._values.shape[1:] == values.shape[1:]:
            self._values[rows] = values
            self._known[_on_host(rows)] = True
        return values

    def _computed(self, rows: slice | torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(outputs).all():
            raise StiffnessError("model: its outputs are not finite; the run has diverged")
        values, self.log_norms[rows] = output_gradients(
            outputs, self.targets[rows], self.loss, self.arithmetic, outputs.dtype
        )
        return values


def _on_host(rows: slice | torch.Tensor) -> slice | torch.Tensor:
    """Rows as an index of a tensor on the CPU."""
    return rows.cpu() if isinstance(rows, torch.Tensor) else rows
