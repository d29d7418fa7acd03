"""Seeded draws from a labelled set: a subset in equal shares of every class, and wrong labels."""

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
    """Draw examples without replacement, in equal shares of every class.

    Where the number of classes does not divide the total, the first classes get one more each.

    Args:
        targets: int64 [N], class numbers.
        total: how many examples to draw.
        class_names: one name per class.
        key: of the configuration; errors begin with it.
        generator: on the CPU.

    Returns:
        int64 [total], positions in ``targets``, sorted by class and then by position.

    Raises:
        StiffnessError: a class has fewer examples than its share, or a class would get none.
    """
    share, extra = divmod(total, len(class_names))
    if share == 0:
        raise StiffnessError(
            f"{key}: {total} examples for {len(class_names)} classes; ask for one per class or more"
        )
    parts = []
    for label, name in enumerate(class_names):
        wanted = share + (label < extra)
        members = (targets == label).nonzero().flatten()
        if len(members) < wanted:
            counts = torch.bincount(targets, minlength=len(class_names))
            raise StiffnessError(
                f"{key}: {total} examples need {wanted} of class {name!r}, "
                f"which has {len(members)}; ask for {len(counts) * int(counts.min())} or fewer"
            )
        drawn = torch.randperm(len(members), generator=generator)[:wanted]
        parts.append(members[drawn].sort().values)
    return torch.cat(parts)


def draw_wrong_labels(
    targets: torch.Tensor, num_classes: int, share: float, seed: int
) -> torch.Tensor:
    """Make exactly round(share * N) of N labels wrong.

    The examples are drawn evenly from all, and each gets a label drawn evenly from the other
    classes: with 10 classes, a share of 0.9 makes labels and inputs independent. With one seed, the
    wrong labels of a smaller share are among those of a larger one.

    Args:
        targets: int64 [N], class numbers below ``num_classes``.
        share: between 0 and 1.
        seed: of the draws.

    Returns:
        int64 [N], a changed copy of ``targets``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    shifts = torch.randint(1, num_classes, (len(targets),), generator=generator)
    chosen = order[: round(share * len(targets))]
    given = targets.clone()
    given[chosen] = (targets[chosen] + shifts[chosen]) % num_classes
    return given
