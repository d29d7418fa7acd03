"""What tests of gradients import from each other; a conftest.py has a name that others have too."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Net(nn.Module):
    """A network written as one function of its parts."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: torch.Tensor, **keywords: torch.Tensor) -> Any:
        return self.function(self, *args, **keywords)


def measure_peak(script: str, *arguments: str) -> dict[str, Any]:
    """What a script beside the tests prints, run in a process whose peak memory tells something."""
    done = subprocess.run(
        [sys.executable, HERE / script, ROOT / "benchmarks", *arguments],
        env=os.environ
        | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
        # Or glibc comes to keep tensors of up to 32 MiB on its heap, with holes between them that
        # differ from run to run.
        | {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
