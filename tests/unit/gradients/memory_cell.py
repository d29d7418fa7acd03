"""Run by test_memory.py in a process of its own: the peak memory of one case, as JSON.

memory_cell.py <folder of peak.py> <case> <budget>
"""

import json
import sys
import warnings

import torch
from torch import nn

sys.path.insert(0, sys.argv[1])
from peak import resident, settle

from stiffness import gradient_gram

torch.set_num_threads(1)
warnings.simplefilter("ignore")


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh().mean(1)


class Raw(nn.Module):
    """A parameter that no layer owns, used by an operator of which the engine knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(512, 256) / 16)
        self.head = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tensordot(x, self.matrix, 1).tanh())


class Positions(nn.Module):
    """A large parameter that is added: every example is given a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 600, 256) / 16)
        self.head = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x + self.positions).tanh().mean(1))


class Tied(nn.Module):
    """A table of words that is also the weight of the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20000, 64)
        self.head = nn.Linear(64, 20000, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(x).tanh()).mean(1)


# Name -> (model, inputs): what is kept of all examples is more than 256 MiB.
CASES = {
    "rows": lambda: (
        nn.Sequential(
            nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), Mean(), nn.Linear(256, 3)
        ),
        torch.randn(700, 130, 256),
    ),
    "late rows": lambda: (
        nn.Sequential(nn.Linear(512, 512), Mean(), nn.Linear(512, 3)),
        torch.randn(360, 250, 512),
    ),
    "convolutions": lambda: (
        nn.Sequential(
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        torch.randn(1200, 64, 22, 22),
    ),
    "tokens": lambda: (
        nn.Sequential(nn.Embedding(30522, 384), Mean(), nn.Linear(384, 3)),
        torch.randint(30522, (1700, 128)),
    ),
    "copies": lambda: (Positions(), torch.randn(700, 600, 1)),
    "tied": lambda: (Tied(), torch.randint(20000, (200, 32))),
    "fallback": lambda: (Raw(), torch.randn(700, 512)),
}

torch.manual_seed(0)
model, inputs = CASES[sys.argv[2]]()
targets = torch.arange(len(inputs)) % 3
gradient_gram(model, inputs[:2], targets[:2])  # loads libraries
before = settle()
gram = gradient_gram(model, inputs, targets, memory_budget=sys.argv[3])
peak = resident("VmHWM") - before - gram.numel() * gram.element_size()
ample = settle()
expected = gradient_gram(model, inputs, targets, memory_budget="16GiB")
needed = resident("VmHWM") - ample - gram.numel() * gram.element_size()
error = float((gram - expected).norm() / expected.norm())
print(json.dumps({"peak": peak, "needed": needed, "error": error}))
