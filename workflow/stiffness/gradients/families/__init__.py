"""Per-example gradients of each kind of layer, from its inputs and output gradients.

Each module registers its own families; ``registry`` says how to write one.
"""

from stiffness.gradients.families import conv, embedding, linear, normalization
from stiffness.gradients.families.registry import family, family_of

__all__ = ["conv", "embedding", "family", "family_of", "linear", "normalization"]
