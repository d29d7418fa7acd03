"""Random changes of training images."""

import torch

from stiffness.data.arrays import Normalization
from stiffness.device import send


def crop_flip(
    images: torch.Tensor, normalization: Normalization, generator: torch.Generator
) -> torch.Tensor:
    """Pad by 4 pixels, crop at random, flip at random, and preprocess.

    Args:
        images: uint8 [N, C, H, W]; the padding has the mean colour, which preprocesses to 0.
        normalization: of the training images.
        generator: on the CPU, so that all devices see the same images.

    Returns:
        float32 [N, C, H, W] with |X| = 1.
    """
    count, _, height, width = images.shape
    shift = send(torch.randint(0, 9, (2, count), generator=generator), images.device) - 4
    flip = send(torch.rand(count, generator=generator) < 0.5, images.device)
    rows = torch.arange(height, device=images.device) + shift[0][:, None]
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(flip[:, None], width - 1 - columns, columns) + shift[1][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    index = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    mean = normalization.mean.to(images.device)
    filled = torch.where(inside[..., None], moved.float(), mean).permute(0, 3, 1, 2)
    return normalization(filled).contiguous(memory_format=torch.channels_last)
