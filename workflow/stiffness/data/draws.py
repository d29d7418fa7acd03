"""Seeded draws from a labelled set: a part in equal shares of every class, and wrong labels."""

from collections.abc import Sequence

import torch

from stiffness.errors import StiffnessError


def draw_stratified(
    targets: torch.Tensor,
    total: int,
    class_names: Sequence[str],
    key: str,
    generator: torch.Generator,
) -> torch.Tensor:
    """int64 [total]: positions drawn without replacement, sorted by class, then by position.

    Classes get equal shares; where their number does not divide the total, the first classes get
    one more.

    Args:
        targets: int64 [N].
        key: of the configuration, that errors begin with.

    Raises:
        StiffnessError: a class has fewer examples than its share, or a class would get none.
    """
    share, extra = divmod(total, len(class_names))
    if share == 0:
        raise StiffnessError(
            f"{key}: {total} examples for {len(class_names)} classes; ask for at least one a class"
        )
    parts = []
    for label, name in enumerate(class_names):
        wanted = share + (label < extra)
        members = (targets == label).nonzero().flatten()
        if len(members) < wanted:
            raise StiffnessError(
                f"{key}: {total} examples need {wanted} of class {name!r}, "
                f"which has {len(members)}; ask for fewer"
            )
        drawn = torch.randperm(len(members), generator=generator)[:wanted]
        parts.append(members[drawn].sort().values)
    return torch.cat(parts)


def draw_wrong_labels(
    targets: torch.Tensor, num_classes: int, share: float, seed: int
) -> torch.Tensor:
    """int64 [N]: ``targets`` with exactly round(share * N) of them wrong.

    The examples are drawn evenly from all, and each gets a label drawn evenly from the other
    classes: with 10 classes a share of 0.9 makes labels and inputs independent. Of one seed, the
    wrong labels of a smaller share are among those of a larger one.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    shifts = torch.randint(1, num_classes, (len(targets),), generator=generator)
    chosen = order[: round(share * len(targets))]
    given = targets.clone()
    given[chosen] = (targets[chosen] + shifts[chosen]) % num_classes
    return given
