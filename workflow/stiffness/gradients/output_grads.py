"""The output gradients that backward passes start from, known as soon as a pass has the outputs.

``stiffness.gradients.arithmetic`` says how they are computed.
"""

import torch

from stiffness.errors import StiffnessError
from stiffness.gradients.arithmetic import Loss, output_gradients


class OutputGrads:
    """The output gradients of all examples, computed when a pass first has an example's outputs.

    Attributes:
        log_norms: float64 [N]; 0 in the arithmetic "naive".
    """

    def __init__(
        self, targets: torch.Tensor, loss: Loss = "cross_entropy", arithmetic: str = "exact"
    ) -> None:
        self.targets, self.loss, self.arithmetic = targets, loss, arithmetic
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
        return bool(self._known[_on_host(rows)].all())

    def of(self, rows: slice | torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
        """The output gradients of the examples in ``rows``, in the dtype of their outputs.

        Raises:
            StiffnessError: outputs that are not finite, or do not fit the loss or the targets.
        """
        if not self.known(rows):
            assert outputs is not None
            self._compute(rows, outputs.detach())
        assert self._values is not None
        return self._values[rows]

    def _compute(self, rows: slice | torch.Tensor, outputs: torch.Tensor) -> None:
        if not torch.isfinite(outputs).all():
            raise StiffnessError("model: its outputs are not finite; the run has diverged")
        values, self.log_norms[rows] = output_gradients(
            outputs, self.targets[rows], self.loss, self.arithmetic
        )
        if self._values is None:
            self._values = outputs.new_zeros(len(self), *outputs.shape[1:])
        self._values[rows] = values.to(outputs.dtype)
        self._known[_on_host(rows)] = True


def _on_host(rows: slice | torch.Tensor) -> slice | torch.Tensor:
    """Rows as an index of a tensor on the CPU."""
    return rows.cpu() if isinstance(rows, torch.Tensor) else rows
