"""Run by test_causal_lm.py in a process of its own: the peak memory of a language model, as JSON.

language_cell.py <folder of peak.py> <budget>

The outputs are [64, 256, 50257]: 3.1 GiB in float32, and a softmax in float64 twice that.
"""

import json
import sys

import torch
from torch import nn

sys.path.insert(0, sys.argv[1])
from peak import resident, settle

from stiffness import gradient_gram

SEQUENCES, POSITIONS, VOCABULARY, WIDTH = 64, 256, 50257, 32

torch.set_num_threads(1)
torch.manual_seed(0)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(1, tokens.shape[1] + 1)[:, None]
        return self.head((self.embed(tokens).cumsum(1) / steps).tanh())


model, tokens = Language(), torch.randint(VOCABULARY, (SEQUENCES, POSITIONS))
gradient_gram(model, tokens[:2], tokens[:2], "causal_lm")  # loads libraries
before = settle()
gram = gradient_gram(model, tokens, tokens, "causal_lm", memory_budget=sys.argv[2])
peak = resident("VmHWM") - before

gradients = []
for sequence in tokens[:2]:
    logits = model.double()(sequence[None])[0]
    loss = nn.functional.cross_entropy(logits[:-1], sequence[1:], reduction="sum")
    found = torch.autograd.grad(loss, list(model.parameters()))
    gradients.append(torch.cat([one.flatten() for one in found]))
true = torch.stack(gradients) @ torch.stack(gradients).T
error = float((gram[:2, :2] - true).norm() / true.norm())
print(json.dumps({"peak": peak, "error": error}))
