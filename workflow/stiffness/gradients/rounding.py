"""How many loss gradients float32 gets wrong (claim C3').

A confident example's 1 - p_y is far below the spacing of float32 numbers near 1, so that p_y - 1,
the largest entry of the loss gradient with respect to the outputs, is rounding noise or 0.
"""

from pathlib import Path

import pandas as pd
import torch
from scipy import stats

from stiffness.data.batch import call, length, place, take
from stiffness.data.evaluation import Evaluation
from stiffness.device import full_float32
from stiffness.gradients.arithmetic import Loss, output_gradients, raw_gradients
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec, build_model

WRONG = 0.01
"""Relative error from which a gradient counts as wrong."""
COLUMNS = ["step", "epoch", "split", "quantity", "value", "low", "high", "n_examples"]
_CHUNK = 250


def relative_errors(
    outputs: torch.Tensor, targets: torch.Tensor, loss: Loss = "cross_entropy"
) -> torch.Tensor:
    """float64 [N]: |g32 - g| / |g| of the loss gradients with respect to the outputs.

    Args:
        outputs: float32 logits [N, C]; g is computed from them in float64, g32 in float32.
        targets: class indices [N].
        loss: as ``gradient_cosines`` takes it.
    """
    unit, log_norms = output_gradients(outputs, targets, loss)
    # Below e^-600 the float32 gradient is 0 anyway, and the factor must stay finite.
    scale = log_norms.clamp_min(-600).neg().exp()
    rounded = raw_gradients(outputs, targets, loss, "float32").double()
    return (rounded * scale[:, None] - unit).norm(dim=1)


@torch.no_grad()
def measure_rounding(
    checkpoints: str | Path,
    evaluation: Evaluation,
    model_spec: ModelSpec,
    device: torch.device,
    data_dir: str | Path = ".",
    loss: Loss = "cross_entropy",
) -> pd.DataFrame:
    """The share of examples whose float32 gradient is ``wrong`` (by more than 1 %) or ``zero``.

    Returns:
        One row per checkpoint in the folder, split of the subset and quantity, with 95 % Wilson
        intervals.

    Raises:
        StiffnessError: a checkpoint is unreadable or belongs to another model.
    """
    classes = len(evaluation.class_names)
    model = build_model(model_spec, evaluation.shape, classes, 0, data_dir).to(device).eval()
    inputs, targets = place(evaluation.inputs, device), evaluation.targets.to(device)
    train = evaluation.num_train
    splits = {"train": slice(0, train), "validation": slice(train, None)}
    rows = []
    for checkpoint in checkpoints_of(checkpoints, model, model_spec):
        parts = [slice(begin, begin + _CHUNK) for begin in range(0, length(inputs), _CHUNK)]
        with full_float32():
            outputs = torch.cat([call(model, take(inputs, part)) for part in parts])
        errors = relative_errors(outputs, targets, loss)
        lost = (raw_gradients(outputs, targets, loss, "float32") == 0).all(1)
        for split, part in splits.items():
            for quantity, hit in (("wrong", errors > WRONG), ("zero", lost)):
                count, number = int(hit[part].sum()), len(hit[part])
                ends = stats.binomtest(count, number).proportion_ci(method="wilson")
                about = [checkpoint.step, checkpoint.epoch, split, quantity]
                rows.append([*about, count / number, ends.low, ends.high, number])
    return pd.DataFrame(rows, columns=COLUMNS)
