"""Stiffness while a network is trained, as the workflow draws it."""

from io import BytesIO

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS, PAIR_MODES

_COLORS = ("#0173b2", "#029e73", "#cc78bc")  # of pair modes, as in the figure of training curves
_DPI = 150


class NotebookFigure(Figure):
    """A figure that a notebook shows, whether pyplot has been imported or not."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def plot_stiffness(table: pd.DataFrame) -> Figure:
    """Draw within-class and between-classes stiffness against epochs.

    One row of panels per quantity, one column per metric and one curve per pair mode, with 95 %
    intervals. Nothing is changed outside of the figure.

    Args:
        table: a "summary": ``monitor.table``, that of ``measure_checkpoints``, or the rows of one
            run of a workflow's. Steps stand in for epochs where these are not known.

    Returns:
        A figure that a notebook shows; ``figure.savefig("stiffness.pdf")`` writes it.
    """
    with matplotlib.rc_context({**style.LOOKS, "figure.dpi": _DPI}):
        figure = NotebookFigure(figsize=(7.0, 4.6), layout="constrained")
        axes = figure.subplots(2, len(METRICS), sharex=True)
        time = "epoch" if table["epoch"].notna().all() else "step"
        for column, metric in enumerate(METRICS):
            for axis, quantity in zip(axes[:, column], ("within", "between"), strict=True):
                for mode, color in zip(PAIR_MODES, _COLORS, strict=True):
                    shown = rows(table, metric=metric, quantity=quantity, pair_mode=mode)
                    label = f"{style.MODE_NAMES[mode]} pairs"
                    style.curve(axis, shown.sort_values("step"), time, color, label, marker=".")
                axis.axhline(0, color="0.6", lw=0.6, zorder=0)
            axes[0, column].set_title(style.METRIC_NAMES[metric])
        axes[0, 0].set_ylabel("within-class stiffness")
        axes[1, 0].set_ylabel("between-classes stiffness")
        if len(table):
            name = style.epoch_axis(axes[0, 0], table[time]).replace("epoch", time)
            for axis in axes[1]:
                axis.set_xlabel(name)
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            title="95 % intervals",
            ncols=len(PAIR_MODES),
            loc="outside lower center",
        )
        figure.draw_without_rendering()  # the layout is solved with these fonts
        return figure
