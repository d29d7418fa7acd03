"""All quantities of one experiment in several arithmetics, against three axes."""

from stiffness.figures.arithmetic import draw_axes as draw

__all__ = ["draw"]
