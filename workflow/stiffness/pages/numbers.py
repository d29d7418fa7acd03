"""The key numbers of a picture, as a small table, so that sentences can refer to them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stiffness.figures import arithmetic, style
from stiffness.files import rows
from stiffness.measures.distance import BEYOND, MEASURED, NONE
from stiffness.measures.pairs import METRICS
from stiffness.measures.seeds import seed_means, student_interval
from stiffness.measures.studies import rows_of_columns
from stiffness.pages.committed import Committed, Picture
from stiffness.report.predictions import predictions
from stiffness.training.stages import Stage, reference_stages

START, FIRST, ONSET, END = "initialisation", "epoch 1", "onset", "end"
_QUANTITIES = {
    "within": "within classes",
    "super_class": "within super-classes",
    "super_super_class": "within super-super-classes",
    "between": "between classes",
}
_EPOCHS = (0, 1, 2, 5, 10, 20, 40, 80, 160)
Cells = Sequence[Sequence[str]]


def key_numbers(committed: Committed, picture: Picture) -> str:
    """A Markdown table of a picture's key numbers; "" where its kind has none."""
    find = _KINDS.get(picture.kind)
    return find(committed, picture) if find else ""


def shows_one_seed(picture: Picture) -> bool:
    """Whether a picture shows a single run, and not the mean over seeds."""
    return _KINDS.get(picture.kind) in (_matrices, _distances)


def table(header: Sequence[str], lines: Cells) -> str:
    """A Markdown table."""
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*text, *("| " + " | ".join(line) + " |" for line in lines)])


def number(value: float, digits: int = 3) -> str:
    """A number with a fixed number of digits; "–" where it is undefined, "∞" where infinite."""
    if np.isnan(value):
        return "–"
    return f"{value:z.{digits}f}" if np.isfinite(value) else "∞" if value > 0 else "-∞"


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A number and its interval, where it has one."""
    if np.isnan(low) and np.isnan(high):
        return number(value, digits)
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def _course(committed: Committed, picture: Picture) -> str:
    """Losses, and stiffness of train-train pairs in every arithmetic."""
    found = _Course(committed, picture.experiment)
    arguments = committed.arguments(picture)
    lines = [["epoch", *found.epochs()]]
    for column in ("train_loss", "validation_loss", "validation_accuracy"):
        lines.append([column.replace("train_", "training_").replace("_", " "), *found.mean(column)])
    for name, own in arguments["summaries"].groupby("arithmetic", sort=False):
        lines += found.stiffness(rows(own, pair_mode="train-train"), f", {name}")
    return _with_mode(table(["", *found.names], lines), "train-train")


def _curves(committed: Committed, picture: Picture) -> str:
    """Stiffness of every learning rate."""
    mode, summary = _mode(committed, picture), committed.table(picture.experiment, "summary")
    lines, names = [], []
    rates = committed.settings["experiments"][picture.experiment]["learning_rates"]
    for rate in sorted(rates, key=float):
        found = _Course(committed, picture.experiment, rate)
        if found.names:
            names = found.names
            lines.append([f"**{rate}**, epoch", *found.epochs()])
            lines += found.stiffness(rows(summary, pair_mode=mode))
    return _with_mode(table(["learning rate", *names], lines), mode)


def _hierarchy(committed: Committed, picture: Picture) -> str:
    """Stiffness of every level of a hierarchy."""
    mode, summary = _mode(committed, picture), committed.table(picture.experiment, "summary")
    found = _Course(committed, picture.experiment)
    lines = [["epoch", *found.epochs()]]
    lines += found.stiffness(rows(summary, pair_mode=mode), quantities=tuple(_QUANTITIES))
    return _with_mode(table(["", *found.names], lines), mode)


class _Course:
    """Four moments of the living runs of a learning rate, and means over seeds at each.

    Attributes:
        names: of the moments.
        at: seed, step, epoch and moment.
    """

    def __init__(self, committed: Committed, experiment: str, rate: str = "") -> None:
        rate = rate or committed.settings["experiments"][experiment]["reference_learning_rate"]
        self.rate = rate
        self.runs = rows(committed.table(experiment, "runs"), lr=rate, status=style.OK)
        self.history = rows(committed.table(experiment, "history"), lr=rate)
        found: list[dict[str, Any]] = []
        for run in self.runs.to_dict("records"):
            own = rows(self.history, seed=run["seed"]).sort_values("step")
            wanted = {START: 0.0, FIRST: 1.0, ONSET: run["onset_epoch"], END: np.inf}
            for moment, epoch in wanted.items():
                epochs = own["epoch"].clip(upper=own["epoch"].max())
                place = int((epochs - min(epoch, own["epoch"].max())).abs().to_numpy().argmin())
                at = own.iloc[place]
                found.append({"seed": run["seed"], "step": at["step"], "moment": moment})
        self.at = pd.DataFrame(found, columns=["seed", "step", "moment"])
        self.names = list(self.at["moment"].drop_duplicates())

    def epochs(self) -> list[str]:
        """The epoch of each moment; its range over seeds."""
        epochs = self.at.merge(self.history, on=["seed", "step"]).groupby("moment")["epoch"]
        ends = [(epochs.min()[name], epochs.max()[name]) for name in self.names]
        return [f"{a:.3g}" if a == b else f"{a:.3g} to {b:.3g}" for a, b in ends]

    def mean(self, column: str) -> list[str]:
        """The mean of a score of the history at each moment, with Student's interval."""
        joined = self.at.merge(self.history, on=["seed", "step"])
        values = [rows(joined, moment=name)[column].to_numpy(np.float64) for name in self.names]
        return [with_interval(*student_interval(of_moment)) for of_moment in values]

    def stiffness(
        self,
        summary: pd.DataFrame,
        about: str = "",
        quantities: Sequence[str] = ("within", "between"),
    ) -> list[list[str]]:
        """A line for each quantity and metric of a summary."""
        joined = rows(summary, lr=self.rate).merge(self.at, on=["seed", "step"])
        means = seed_means(joined, ["metric", "quantity", "moment"])
        lines = []
        for metric in METRICS:
            for quantity in quantities:
                own = rows(means, metric=metric, quantity=quantity).set_index("moment")
                if len(own):
                    cells = [_stiffness(own.loc[name]) for name in self.names]
                    lines.append([f"{metric} {_QUANTITIES[quantity]}{about}", *cells])
        return lines


def _matrices(committed: Committed, picture: Picture) -> str:
    """Means on the diagonal and off it, of the run and at the stages that a matrix shows."""
    shown = _Stages(committed, picture)
    options = committed.settings["figures"][picture.kind]
    summary = rows(committed.table(picture.experiment, "summary"), **shown.run)
    quantities = ["within", "between"]
    if picture.kind == "hierarchy_matrix":
        quantities = list(_QUANTITIES)
    lines = []
    for metric in options.get("metrics") or [options["metric"]]:
        for mode in options.get("pair_modes") or [options["pair_mode"]]:
            for quantity in quantities:
                own = rows(summary, metric=metric, pair_mode=mode, quantity=quantity)
                if len(own):
                    cells = [_stiffness(_at(own, stage)) for stage in shown.stages]
                    lines.append([f"{metric} {_QUANTITIES[quantity]}, {mode}", *cells])
    return table(shown.header, [shown.accuracies, *lines])


def _distances(committed: Committed, picture: Picture) -> str:
    """Slopes, and critical lengths by the line and by the best falling curve, at the stages."""
    shown, mode = _Stages(committed, picture), _mode(committed, picture)
    arguments = committed.arguments(picture)
    lengths = rows(arguments["critical_length"], pair_mode=mode, **shown.run)
    lines = [shown.accuracies]
    for metric in METRICS:
        of_metric = {
            name: [_at(rows(lengths, metric=metric, estimator=name), one) for one in shown.stages]
            for name in ("line", "monotone")
        }
        slopes = [
            with_interval(fit["slope"], fit["slope_low"], fit["slope_high"])
            for fit in of_metric["line"]
        ]
        lines.append([f"{metric}, slope of the line", *slopes])
        names = {"line": "ξ of the line", "monotone": "ξ of the best falling curve"}
        for name, fits in of_metric.items():
            lines.append([f"{metric}, {names[name]}", *map(_length, fits)])
    return _with_mode(table(shown.header, lines), mode)


def _lengths(committed: Committed, picture: Picture) -> str:
    """Area lengths, and the critical lengths of each seed, by learning rate."""
    mode, arguments = _mode(committed, picture), committed.arguments(picture)
    lengths = rows(arguments["critical_length"], pair_mode=mode)
    lines = []
    for metric in METRICS:
        for rate in sorted(arguments["learning_rates"], key=float):
            course = _Course(committed, picture.experiment, rate)
            if not course.names:
                continue
            own = rows(lengths, lr=rate, metric=metric).merge(course.at, on=["seed", "step"])
            areas = seed_means(rows(own, estimator="area"), ["moment"]).to_dict("records")
            area = {str(one["moment"]): one for one in areas}
            cells = [
                with_interval(area[name]["value"], area[name]["low"], area[name]["high"])
                for name in (FIRST, END)
            ]
            at_end = rows(own, estimator="line", moment=END).sort_values("seed")
            fits = [_length(fit, interval=False) for _, fit in at_end.iterrows()]
            accuracy = with_interval(
                *student_interval(course.runs["best_validation_accuracy"].to_numpy(np.float64))
            )
            lines.append([metric, rate, *cells, "; ".join(fits), accuracy])
    header = ["metric", "rate", "L at epoch 1", "L at the end"]
    header += ["ξ of the line at the end, per seed", "best validation accuracy"]
    return _with_mode(table(header, lines), mode)


def _arithmetics(committed: Committed, picture: Picture) -> str:
    """What the study's own table of numbers says of its quantities."""
    arguments = committed.arguments(picture)
    selected = {name: arguments[name] for name in ("columns", "runs", "history", "summaries")}
    selected |= {name: arguments[name] for name in ("siblings", "confidence", "options")}
    found = arithmetic.numbers(**selected)
    shares = rows(found, quantity="share confident").drop_duplicates(["experiment", "stage"])
    order = list(found["quantity"].drop_duplicates())
    names = [name for name in order if name not in ("share confident", "share wrong")]
    present = [name for name in arithmetic.NAMES if name in set(found["arithmetic"])]
    parts = []
    for share in shares.to_dict("records"):
        own = rows(found, experiment=share["experiment"], stage=share["stage"])
        title = (
            f"`{share['experiment']}`, {share['stage']} (epoch {share['epoch']:.3g}): training "
            f"loss {share['train_loss']:.3f}, validation loss {share['validation_loss']:.3f}; "
            "share of examples with 1 - p below 1e-7: "
            + with_interval(share["value"], share["low"], share["high"])
        )
        lines = []
        for name in names:
            cells = []
            for one in present:
                line = rows(own, quantity=name, arithmetic=one)
                plain = not name.endswith("sign") and not name.endswith("cosine")
                cells.append(_value(line, plain) if len(line) else "–")
            lines.append([name, *cells])
        parts.append(f"{title}\n\n{table(['', *present], lines)}")
    return "\n\n".join(parts)


def predictions_of(committed: Committed, picture: Picture) -> str:
    """The predictions on arithmetic, held against each experiment of a study."""
    arguments = committed.arguments(picture)
    names = ("runs", "summaries", "siblings", "confidence")
    found = []
    for column in arguments["columns"]:
        own = {name: rows_of_columns(arguments[name], [column]) for name in names}
        found.append(predictions(**own).assign(experiment=column["experiment"]))
    table_of_all = pd.concat(found)
    key = ["prediction", "what", "bound"]
    lines = []
    for _, group in table_of_all.groupby(key, sort=False):
        by_name = {str(row["experiment"]): row for row in group.to_dict("records")}
        first = group.iloc[0]
        cells = [_held(by_name.get(column["experiment"])) for column in arguments["columns"]]
        lines.append([*map(str, first[key]), *cells])
    columns = [f"`{column['experiment']}`" for column in arguments["columns"]]
    return table(["", "number", "bound", *columns], lines)


def _held(row: Mapping[Any, Any] | None) -> str:
    """A number of a prediction, with what it says of it."""
    if row is None:
        return "–"
    missing = "never" if "epoch" in row["what"] else "–"
    shown = missing if np.isnan(row["value"]) else f"{row['value']:.3g}"
    return f"{shown} **{row['verdict']}**" if row["verdict"] else shown


def epochs_of(committed: Committed, picture: Picture) -> str:
    """Sign stiffness within classes in every arithmetic at some epochs, for each experiment."""
    arguments = committed.arguments(picture)
    parts = []
    for column in arguments["columns"]:
        own = {
            name: rows_of_columns(arguments[name], [column])
            for name in ("history", "summaries", "confidence")
        }
        present = [n for n in arithmetic.NAMES if n in set(own["summaries"]["arithmetic"])]
        epochs = np.sort(own["history"]["epoch"].unique())
        wanted = [epoch for epoch in _EPOCHS if epoch < epochs[-1]]
        chosen = dict.fromkeys([*(epochs[np.abs(epochs - e).argmin()] for e in wanted), epochs[-1]])
        lines = []
        for epoch in chosen:
            shares = rows(own["confidence"], epoch=epoch, split="train", quantity="confident")
            within = rows(
                own["summaries"],
                epoch=epoch,
                quantity="within",
                metric="sign",
                pair_mode="train-train",
            )
            losses = rows(own["history"], epoch=epoch)[["train_loss", "validation_loss"]].mean()
            means = seed_means(within, ["arithmetic"])
            cells = [_stiffness(rows(means, arithmetic=name).iloc[0]) for name in present]
            share = rows(shares, arithmetic=present[0])["value"].mean()
            lines.append([f"{epoch:.3g}", *map(number, losses), number(share), *cells])
        header = ["epoch", "training loss", "validation loss", "share with 1 - p < 1e-7", *present]
        seeds = ", ".join(map(str, sorted(own["history"]["seed"].unique())))
        parts.append(f"`{column['experiment']}`, seeds {seeds}\n\n{table(header, lines)}")
    return "\n\n".join(parts)


class _Stages:
    """The stages that a picture shows, of the run that it shows."""

    def __init__(self, committed: Committed, picture: Picture) -> None:
        runs = committed.table(picture.experiment, "runs")
        history = committed.table(picture.experiment, "history")
        settings = committed.shows(picture)["settings"]
        rate = settings["learning_rate"]
        seed, _ = style.reference_run(runs, rate)
        self.run = {"lr": rate, "seed": seed}
        self.stages = reference_stages(runs, history, rate, settings["stages"])
        self.header = [f"seed {seed}", *(f"epoch {stage.epoch:.3g}" for stage in self.stages)]
        self.accuracies = [
            "validation accuracy",
            *(number(stage.accuracy) for stage in self.stages),
        ]


def _at(found: pd.DataFrame, stage: Stage) -> pd.Series:
    """The row of a stage."""
    return rows(found, step=stage.step).iloc[0]


def _mode(committed: Committed, picture: Picture) -> str:
    return str(committed.settings["figures"][picture.kind]["pair_mode"])


def _with_mode(text: str, mode: str) -> str:
    return f"{text}\n\n({style.MODE_NAMES[mode]} pairs.)"


def _stiffness(row: pd.Series) -> str:
    """A stiffness; its interval ends where stiffness does."""
    if np.isnan(row["low"]):
        return number(row["value"])
    return with_interval(row["value"], max(row["low"], -1.0), min(row["high"], 1.0))


def _value(line: pd.DataFrame, plain: bool) -> str:
    row = line.iloc[0]
    return number(row["value"]) if plain else _stiffness(row)


def _length(fit: pd.Series, interval: bool = True) -> str:
    """A critical length with its status, unless it was measured."""
    if fit["crossing"] == NONE:
        return "no crossing"
    if fit["crossing"] == BEYOND:
        return f"above {number(fit['max_distance'], 2)}"
    text = with_interval(fit["value"], fit["low"], fit["high"], 2)
    text = text if interval else number(fit["value"], 2)
    return text if fit["crossing"] == MEASURED else f"{text}, {fit['crossing']}"


_KINDS: dict[str, Callable[[Committed, Picture], str]] = {
    "training_curves": _course,
    "stiffness_curves": _curves,
    "hierarchy_curves": _hierarchy,
    "class_matrices": _matrices,
    "class_matrix": _matrices,
    "class_matrix_stages": _matrices,
    "hierarchy_matrix": _matrices,
    "distance": _distances,
    "critical_length": _lengths,
    "arithmetic": _arithmetics,
}
