"""Figures as the workflow draws them."""

from stiffness.figures.style import use_looks

use_looks()
