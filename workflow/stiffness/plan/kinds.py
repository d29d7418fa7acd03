"""Every kind of figure, once: what it reads, what it needs, how it looks, and what it shows.

Rules, targets, captions and the report follow from ``KINDS``. An entry here and a module in
``stiffness.figures`` with a function ``draw`` add a kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from stiffness.data.sources import IMAGES, TEXTS, data_set
from stiffness.errors import StiffnessError
from stiffness.plan.paths import (
    ARRAYS,
    EVALUATION,
    HIERARCHY,
    LAYER_MEASURE,
    LAYER_MEASURES,
    MEASURE,
    REPLICATES,
    WHOLE_SET,
    each,
    fill,
)
from stiffness.section import Section

Inches = Annotated[float, Field(gt=0)]
Color = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
Metric = Literal["sign", "cosine"]
PairMode = Literal["train-train", "train-val", "val-val"]


class Looks(Section):
    """Options of a kind of figure; a change of one redraws that kind and nothing else."""

    width: Inches = Field(7.0, description="In inches; a column of the paper is 3.4, a page 7.")
    height: Inches


def looks(width: float, height: float, **fields: Any) -> type[Looks]:
    """A model of options: sizes in inches, then the (type, default) of each further option."""
    sizes: dict[str, Any] = {"width": (Inches, width), "height": (Inches, height)}
    return create_model("Looks", __base__=Looks, **sizes, **fields)


def palette(of: str, default: str = "viridis") -> Any:
    """An option that is a palette of seaborn's or a colormap of matplotlib's."""
    return str, Field(default, description=f"Of {of}.")


def colors(of: str, *defaults: str) -> Any:
    """An option with as many colours as there are defaults; ``of`` says what each is for."""
    number = len(defaults)
    description = f"Of {of}."
    return (
        list[Color],
        Field(list(defaults), min_length=number, max_length=number, description=description),
    )


class ClaimsLooks(Section):
    """Options of the picture of the claims, whose height follows from their number."""

    width: Inches = 7.0
    colors: list[Color] = Field(
        ["#56b4e9", "#de8f05", "#cccccc"],
        min_length=3,
        max_length=3,
        description="Of supported, contradicted and not decided.",
    )


Experiment = Mapping[str, Any]
"""An experiment's settings, defaults filled in."""
Dataset = Mapping[str, Any]
"""The options of its data set."""


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    ``stiffness.figures.<module>.draw`` draws it. What it reads reaches ``draw`` by name, as its
    arguments: tables by the names below, settings by their keys below, and ``options``. A name with
    a slash is one entry of a mapping: "by_layer/summary" is ``by_layer["summary"]``. Whatever else
    ``draw`` needs, a function ``prepare`` in the same module makes of these arguments and returns
    by name. See ``stiffness.figures.load``.

    Attributes:
        name: of the kind, and of its module unless ``module`` says otherwise.
        caption: as the report shows it, with {experiment}, {stage} and {options[...]} filled in.
        looks: its options, with defaults, bounds and descriptions.
        tables: tables of the experiment that it reads, in the first of its arithmetics.
        by_arithmetic: tables of the experiment that it reads in all of its arithmetics, by the
            argument that gets them as one table, with a column arithmetic.
        parts: tables of segments that it reads, as paths by name, for every seed and segment of
            the reference learning rate; ``draw`` gets them as one, with a column seed.
        files: further files of the experiment, as paths by name.
        settings: the setting of the experiment that each argument of ``draw`` gets. Beside the
            keys of an experiment there are distance_layer, the first of distance_layers, and
            label_noise, the share of wrong labels in its data set.
        by_stage: whether a figure shows one stage of training, a file for each.
        page: whether ``page`` of the same module makes a web page of the same arguments, which is
            written beside the figure.
        lacking: why the kind does not exist for an experiment, and the key to set; "" if it does.
            Gets the experiment's name, its settings, and the options of its data set.
        across: the argument of ``draw`` that gets the name and the settings of each experiment
            where one figure shows several (a study); "" where it shows one. ``numbers`` of the
            same module then makes a table of the same arguments, which is written beside it.
    """

    name: str
    caption: str
    looks: type[Looks]
    tables: tuple[str, ...]
    by_arithmetic: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    by_stage: bool = False
    page: bool = False
    lacking: Callable[[str, Experiment, Dataset], str] = lambda name, experiment, dataset: ""
    across: str = ""
    module: str = ""


_COLORMAP = str, Field("RdBu_r", description="Diverging: 0 is white.")
_SIGN, _COSINE = (Metric, "sign"), (Metric, "cosine")
_TRAIN_VAL = PairMode, "train-val"
_CLASSES = {"classes": fill(MEASURE, name="classes")}
_RATE, _RATES = {"learning_rate": "reference_learning_rate"}, {"learning_rates": "learning_rates"}
_STAGES, _SPACE = {"stages": "stages"}, {"space": "distance_layer"}


def _hierarchy(kind: str) -> Callable[[str, Experiment, Dataset], str]:
    def lacking(name: str, experiment: Experiment, dataset: Dataset) -> str:
        if dataset.get("hierarchy"):
            return ""
        return (
            f"{kind} needs a hierarchy of classes, which the data set of {name} has not; "
            f"set datasets.{experiment['dataset']}.hierarchy"
        )

    return lacking


def _whole_set(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if experiment["evaluation"]["all"] != "none":
        return ""
    return (
        f"whole_set needs the whole training set, which {name} does not measure; "
        f"set experiments.{name}.evaluation.all to stages"
    )


def _arithmetic(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if {"exact", "keras"} <= set(experiment["arithmetic"]):
        return ""
    return (
        f"arithmetic compares exact with keras and others, and {name} lacks one of the two; "
        f"set experiments.{name}.arithmetic to [exact, float32, keras, bfloat16]"
    )


def _noise(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if (dataset.get("label_noise") or {}).get("share"):
        return ""
    return (
        f"detection needs wrong labels, and those of {name} are clean; "
        f"set datasets.{experiment['dataset']}.label_noise"
    )


def _rates(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if len(experiment["learning_rates"]) > 1:
        return ""
    return f"equal_loss compares learning rates; add to experiments.{name}.learning_rates"


def _layers(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if experiment["layer_stiffness"] != "none":
        return ""
    return (
        f"layers needs stiffness by layer, which {name} does not measure; "
        f"set experiments.{name}.layer_stiffness to stages"
    )


def _images(name: str, experiment: Experiment, dataset: Dataset) -> str:
    if data_set(dataset).inputs == IMAGES:
        return ""
    examples = "are texts" if data_set(dataset).inputs == TEXTS else "may be none"
    return f"contact_sheet shows images, and the examples of {name} {examples}; take another kind"


_BY_ARITHMETIC = {"summaries": "summary", "siblings": "siblings", "confidence": "confidence"}
_ARITHMETICS = colors(
    "exact, float32, keras, bfloat16, float64, tf32 and naive",
    *("#000000", "#0173b2", "#de8f05", "#029e73", "#999999", "#cc78bc", "#56b4e9"),
)


_KINDS = (
    Kind(
        "training_curves",
        (
            "Training and validation loss (top; on the right on a logarithmic axis), within-class "
            "stiffness (middle) and between-classes stiffness (bottom) of {experiment} at the "
            "reference learning rate, in both metrics, for train-train, train-val and val-val "
            "pairs. Dashed lines are further arithmetics of the loss gradient on the same "
            "checkpoints, where they are measured, for train-train pairs. Losses are drawn per "
            "seed; stiffness is the mean over seeds with 95 % intervals, for which the spread "
            "between seeds is pooled over five neighbouring checkpoints. An orange line marks the "
            "lowest validation loss of a seed, the onset of over-fitting; it is dotted where the "
            "loss does not rise again by 1 %. Epochs are logarithmic in the left half of the axis "
            "and linear in the right half; the halves meet at the median onset, or at half of the "
            "training where it comes later. Look for whether within-class stiffness leaves 1, and "
            "both stiffnesses turn towards 0, after it (figure 3 of the paper)."
        ),
        looks(
            7.0,
            5.6,
            colors=colors(
                "train-train, train-val and val-val pairs; orange is the onset",
                "#0173b2",
                "#029e73",
                "#cc78bc",
            ),
            # Apart from the colours of the pair modes, which viridis comes near.
            palette=palette("further arithmetics of the loss gradient", "copper"),
        ),
        tables=("runs", "history"),
        by_arithmetic={"summaries": "summary"},
        settings=_RATE,
    ),
    Kind(
        "class_matrices",
        (
            "Class stiffness matrices of {experiment} at stages of training (columns), by metric "
            "and pair mode (rows). Colour limits are shared within a metric; grey is undefined. "
            "Look for a diagonal that stands out, and for whether the pair modes agree (figures 4, "
            "S1 and S2)."
        ),
        looks(
            7.0,
            8.6,
            colormap=_COLORMAP,
            metrics=(
                list[Metric],
                Field(["sign", "cosine"], min_length=1, description="Rows, from the top."),
            ),
            pair_modes=(
                list[PairMode],
                Field(
                    ["train-train", "train-val", "val-val"],
                    min_length=1,
                    description="Rows within a metric.",
                ),
            ),
        ),
        tables=("runs", "history"),
        parts=_CLASSES,
        settings=_RATE | _STAGES,
        page=True,
    ),
    Kind(
        "class_matrix",
        (
            "This is the class stiffness matrix of {experiment} at one stage of training (stage "
            "{stage} of its settings), in the {options[metric]} metric, for {options[pair_mode]} "
            "pairs; grey is undefined. The colour limits leave out the half percent of class pairs "
            "farthest from 0. Look for a diagonal, stiffness within a class, that stands out "
            "(figures 6 and S3 to S6)."
        ),
        looks(9.0, 8.6, colormap=_COLORMAP, metric=_SIGN, pair_mode=_TRAIN_VAL),
        tables=("runs", "history"),
        parts=_CLASSES,
        settings=_RATE | _STAGES,
        by_stage=True,
    ),
    Kind(
        "class_matrix_stages",
        (
            "These are the class stiffness matrices of {experiment} at the stages of its settings, "
            "in the {options[metric]} metric, for {options[pair_mode]} pairs, with common colour "
            "limits; grey is undefined. Look for how the diagonal and the rest change as training "
            "goes on (figure 7)."
        ),
        looks(7.0, 6.6, colormap=_COLORMAP, metric=_SIGN, pair_mode=_TRAIN_VAL),
        tables=("runs", "history"),
        parts=_CLASSES,
        settings=_RATE | _STAGES,
        page=True,
        module="class_matrix",
    ),
    Kind(
        "hierarchy_matrix",
        (
            "This is the class stiffness matrix of {experiment} (stage {stage} of its settings). "
            "Classes are sorted by super-class (frames, names) and super-super-class (heavy "
            "frames, brackets). Look for frames that are stiffer than what surrounds them (figure "
            "8)."
        ),
        looks(7.0, 6.4, colormap=_COLORMAP, metric=_SIGN, pair_mode=_TRAIN_VAL),
        tables=("runs", "history"),
        parts=_CLASSES,
        files={"hierarchy": HIERARCHY},
        settings=_RATE | _STAGES,
        by_stage=True,
        lacking=_hierarchy("hierarchy_matrix"),
    ),
    Kind(
        "hierarchy_curves",
        (
            "Stiffness of {experiment} is drawn against epoch between examples of one class, of "
            "different classes of one super-class, of different super-classes of one "
            "super-super-class, and of any two different classes (the baseline). The lower panels "
            "show the last three alone, enlarged. Curves are means over seeds with 95 % intervals, "
            "for which the spread between seeds is pooled over five neighbouring checkpoints. Look "
            "for whether the first three lie above the baseline, in this order, and whether all "
            "turn towards 0 (figure 9)."
        ),
        looks(
            7.0,
            4.4,
            colors=colors(
                "class, super-class, super-super-class and baseline",
                "#0173b2",
                "#de8f05",
                "#029e73",
                "#949494",
            ),
            pair_mode=_TRAIN_VAL,
        ),
        tables=("runs", "summary"),
        files={"hierarchy": HIERARCHY},
        settings=_RATE,
        lacking=_hierarchy("hierarchy_curves"),
    ),
    Kind(
        "stiffness_curves",
        (
            "Within-class and between-classes stiffness of {experiment} is drawn against epoch for "
            "both metrics and all learning rates. Curves are means over seeds with 95 % intervals, "
            "for which the spread between seeds is pooled over five neighbouring checkpoints. "
            "Epochs are logarithmic in the left half of the axis and linear in the right half. The "
            "dotted line is -1 / (C - 1), the cosine of two classes' loss gradients where all C "
            "outputs are equal. Look for the rise between classes early in training and the "
            "regression towards 0 late (figure 5)."
        ),
        looks(7.0, 4.6, palette=palette("learning rates"), pair_mode=_TRAIN_VAL),
        tables=("runs", "summary"),
        settings=_RATES,
    ),
    Kind(
        "distance",
        (
            "Stiffness of same-class pairs of {experiment} is drawn against their distance at "
            "stages of training, for one seed, with the fitted line and its crossing with 0, the "
            "critical length (diamond). The line is dotted and the diamond open where the data do "
            "not reach; an open square is a misfit, where the bins at the crossing exclude 0. The "
            "upright mark is where the best curve that falls monotonically reaches 0, an estimate "
            "without a line; an arrow means that it is still above 0 at the farthest pair. Bars "
            "are 95 % intervals from a bootstrap over examples, and of Wilson's type where all "
            "pairs of a bin agree in sign. Look for whether both marks agree, and whether they "
            "move to the left as training goes on (figure 11)."
        ),
        looks(7.0, 3.9, color=(Color, "#0173b2"), pair_mode=_TRAIN_VAL),
        tables=("runs", "history", "distance", "critical_length"),
        settings=_RATE | _STAGES | _SPACE,
    ),
    Kind(
        "critical_length",
        (
            "Two lengths of {experiment} are drawn against epoch (left) and training loss (right) "
            "for all learning rates: the critical length, where the fitted line reaches 0, and the "
            "area length L, the mean stiffness of same-class pairs up to a fixed distance inside "
            "the data. Curves are means over seeds (of the critical length geometric ones), with "
            "95 % intervals over examples and seeds, for which the spread between seeds is pooled "
            "over five neighbouring checkpoints. A mark shows the worst that any seed has: an open "
            "circle is an extrapolation beyond the farthest pair, a square a misfit (the bins at "
            "the crossing exclude 0), an arrow a mean above 5 or above the axis, and a cross a "
            "seed whose line does not fall, so that there is no mean. Look for whether larger "
            "rates lie lower at the same epoch and at the same loss (figure 12)."
        ),
        looks(7.0, 7.6, palette=palette("learning rates"), pair_mode=_TRAIN_VAL),
        tables=("runs", "history", "critical_length"),
        settings=_RATES | _SPACE,
    ),
    Kind(
        "whole_set",
        (
            "Are some hundred examples enough? Cosine stiffness of {experiment} between training "
            "examples, estimated from the evaluation subset with 95 % intervals, is compared with "
            "the mean over all pairs of the whole training set. The left panel shows the averages "
            "within and between classes at each stage; a diamond, the mean of the whole set's "
            "class matrix on or off its diagonal, should lie within its interval. The right panel "
            "shows every cell of the class matrix, with the share of intervals that hold the whole "
            "set's value: about 95 % where intervals are right, and more where the subset is a "
            "large part of the set (section 3.2)."
        ),
        looks(
            7.0,
            3.3,
            colors=colors("stiffness within classes and between them", "#0173b2", "#de8f05"),
            palette=palette("stages"),
        ),
        tables=("runs", "history", "summary"),
        parts=_CLASSES | {"whole_set": WHOLE_SET},
        settings=_RATE | _STAGES,
        lacking=_whole_set,
    ),
    Kind(
        "arithmetic",
        (
            "What the arithmetic of the loss gradient does to the same checkpoints, one column "
            "per experiment. From the top: losses; the share of training examples whose 1 - p is "
            "below 1e-7 (black), and of those that an arithmetic leaves no gradient (dashed, in "
            "its colour); sign stiffness within classes and between them, where a zero gradient "
            "counts as sign 0; cosine stiffness within classes, where it counts as 0; and "
            "norm-weighted stiffness within classes. The dotted line in the third row is what "
            "the clip must do: exact stiffness times the share of pairs of which both examples "
            "keep a gradient. Curves are means over seeds with 95 % intervals; the orange line "
            "marks the mean onset of over-fitting, the lowest validation loss. Look for whether "
            "the black curve falls as the others do, whether they fall where confident examples "
            "appear, and whether the bottom row tells arithmetics apart."
        ),
        looks(
            7.0,
            9.0,
            colors=_ARITHMETICS,
            pair_mode=(PairMode, "train-train"),
        ),
        tables=("runs", "history"),
        by_arithmetic=_BY_ARITHMETIC,
        settings={"lr": "reference_learning_rate", "training_arithmetic": "training_arithmetic"},
        lacking=_arithmetic,
        across="columns",
    ),
    Kind(
        "arithmetic_axes",
        (
            "Quantities of {experiment} in several arithmetics of the loss gradient, on the same "
            "checkpoints, against epoch (left), training loss, which falls to the right "
            "(middle), and the share of training examples whose 1 - p is below 1e-7 (right). "
            "Curves are means over seeds with 95 % intervals. Look for which quantities part, "
            "and at which share; those that weight examples by their gradients' norms should "
            "not."
        ),
        looks(
            7.0,
            10.5,
            colors=_ARITHMETICS,
            pair_mode=(PairMode, "train-train"),
        ),
        tables=("runs", "history"),
        by_arithmetic=_BY_ARITHMETIC,
        settings=_RATE,
        lacking=_arithmetic,
    ),
    Kind(
        "siblings",
        (
            "Measures of the literature for {experiment} that the same cosines C and gradient "
            "norms w give, against epoch, over training examples and over validation examples. "
            "Norm-weighted stiffness is the mean cosine of pairs, weighted by the product of their "
            "norms; m-coherence is the sum of all inner products over that of the squared norms; "
            "the noise scale is the variance of the gradients over the squared norm of their mean, "
            "and has no value where the estimate of that norm is not positive; "
            "kernel velocity compares C with the checkpoint before. The orange line marks the mean "
            "onset of over-fitting. Look for which of them turn at the onset."
        ),
        looks(
            7.0,
            7.6,
            colors=colors("training and validation examples", "#0173b2", "#de8f05"),
        ),
        tables=("runs", "history", "siblings"),
        settings=_RATE,
    ),
    Kind(
        "detection",
        (
            "Which score finds mislabelled training examples? The area under the ROC curve is "
            "drawn against epoch, with one panel per share of wrong labels: 1 means that every "
            "mislabelled example scores higher than every clean one, and 0.5 is chance. TracIn and "
            "forgetting add up over checkpoints; own-class stiffness is an example's mean "
            "stiffness with the others of the class that it is labelled with, and low values "
            "count as suspicious. Look for when a score is at its best, and whether it is lost "
            "once the wrong labels are memorised."
        ),
        looks(7.0, 3.6, palette=palette("scores")),
        tables=("runs",),
        parts={"examples": fill(MEASURE, name="examples")},
        settings={"lr": "reference_learning_rate", "share": "label_noise"},
        lacking=_noise,
        across="columns",
    ),
    Kind(
        "equal_loss",
        (
            "Stiffness and critical length of {experiment} are drawn against the learning rate, at "
            "equal epoch (left) and at equal training loss (right), which is interpolated between "
            "checkpoints on the range that all rates go through. Intervals are 95 %, over examples "
            "and seeds. τ is Kendall's rank correlation with the learning rate, averaged over "
            "levels; it is negative where larger rates give smaller values. Look for whether the "
            "order of the rates survives at equal loss."
        ),
        looks(7.0, 8.4, palette=palette("epochs and of losses"), pair_mode=_TRAIN_VAL),
        tables=("runs", "levels", "order"),
        lacking=_rates,
    ),
    Kind(
        "early_stopping",
        (
            "Training of {experiment} is stopped by training data alone, at the last checkpoint "
            "before the within-class stiffness of train–train pairs falls: two checkpoints in a "
            "row lie below the highest since epoch 1, by the 95 % interval of the difference. The "
            "left panel compares this epoch with that of the lowest validation loss; the right "
            "panel shows the difference in validation accuracy, also for training to the last "
            "epoch. Open marks mean that stiffness never fell. Look for whether points lie near "
            "the diagonal."
        ),
        looks(7.0, 3.0, palette=palette("learning rates")),
        tables=("runs", "stopping"),
    ),
    Kind(
        "layers",
        (
            "Stiffness of {experiment} is shown layer by layer, from the input (left) to the "
            "output. The top row shows the stiffness of each layer's own part of the gradient, "
            "within classes (filled) and between them (open), at the stages of training, with the "
            "whole gradient's beside it. The middle row shows the critical length of the whole "
            "gradient's stiffness where distance is measured between what a layer reads, as it is "
            "(left) and relative to the median distance of the same pairs (right). Distances of "
            "different layers are not on one scale: behind a ReLU none exceeds 1 (grey: none can "
            "be so far apart), and deep in a trained network the examples of a class lie close "
            "together. An open circle is an extrapolation beyond the farthest pair, an arrow a "
            "value above the axis, and a cross means that the line does not fall. The bottom row "
            "shows stiffness against that distance at the last stage, for at most five layers. "
            "Look for whether stiffness falls with distance in every layer, and whether xi shrinks "
            "from left to right in both middle panels: where it shrinks on the left alone, "
            "distances shrink and not the share of a class that moves together. Bars are 95 % "
            "intervals from a bootstrap over examples."
        ),
        looks(
            7.0,
            8.0,
            palette=palette("stages"),
            color=(Color, "#0173b2"),
            metric=(Metric, Field("cosine", description="Of the critical length.")),
            pair_mode=_TRAIN_VAL,
        ),
        tables=("runs", "history", "summary"),
        parts={
            f"by_layer/{name}": path for name, path in each(LAYER_MEASURE, LAYER_MEASURES).items()
        },
        settings=_RATE | _STAGES,
        lacking=_layers,
    ),
    Kind(
        "contact_sheet",
        (
            "Which examples of {experiment} are anti-stiff? There is one row per class, with its "
            "mean cosine stiffness between training and validation examples (stage {stage} of the "
            "settings). From the left, a row shows the examples with the highest and with the "
            "lowest mean stiffness with the other set's examples of their class; the stiffest and "
            "the least stiff pairs of the class (training image left, validation image right); and "
            "the stiffest pairs with an example of another class, which is named. A frame marks an "
            "example that the network takes for another class, named after the arrow. Look for "
            "whether the least stiff examples are odd, mislabelled or wrongly classified, and "
            "whether the stiffest pairs across classes look alike."
        ),
        looks(
            10.0,
            7.4,
            color=(
                Color,
                Field(
                    "#d55e00",
                    description="Of the frame of an example that is taken for another class.",
                ),
            ),
            classes=(
                int,
                Field(
                    10, ge=1, description="At most so many, those with the least stiffness within."
                ),
            ),
        ),
        tables=("runs", "history"),
        parts={"extremes": fill(MEASURE, name="extremes")},
        files={"arrays": ARRAYS, "evaluation": EVALUATION},
        settings=_RATE | _STAGES,
        by_stage=True,
        lacking=_images,
    ),
    Kind(
        "label_noise",
        (
            "Random labels: the same network is trained on data of which some share of the "
            "training labels is wrong, with one column per share. The upper panels show losses and "
            "accuracies, against given labels in training and clean ones in validation; the dotted "
            "line is the accuracy of a network that has learnt the clean labels alone, so that "
            "training accuracy above it is memorised. The panels below show stiffness within and "
            "between classes for both metrics, over all pairs, and with the training side "
            "restricted to clean or to mislabelled examples; the class of a training example is "
            "the one it is labelled with. Curves are means over seeds, and bands are 95 % "
            "intervals. Look for whether the two stiffnesses part later or less where more labels "
            "are wrong, and whether mislabelled examples are stiff with anything at all."
        ),
        looks(
            7.0,
            8.6,
            colors=colors("stiffness within classes and between them", "#0173b2", "#de8f05"),
            pair_mode=(Literal["train-train", "train-val"], "train-val"),
        ),
        tables=("runs", "history", "summary"),
        parts={"replicates": REPLICATES},
        settings={"lr": "reference_learning_rate", "share": "label_noise"},
        across="columns",
    ),
    Kind(
        "critical_lengths",
        (
            "Does SGD with momentum, or a larger batch, move the critical length as the learning "
            "rate does? Critical lengths by a fitted line (top) and by the best curve that falls "
            "monotonically, and within-class stiffness, are drawn against training loss, which "
            "falls to the right. There is one column per experiment, one colour per learning rate "
            "and one curve per seed; the first experiment is repeated in grey behind the others. "
            "The bottom row shows the line's critical length where the loss of each run first "
            "falls to at most three losses that all runs reach, with interpolation between "
            "checkpoints. An open circle is an extrapolation beyond the farthest pair; a cross "
            "means that the fitted line does not fall, and an arrow that the value lies above the "
            "axis, or that stiffness is above 0 as far as there are pairs. Bars are 95 % "
            "percentile intervals from a bootstrap over examples. Look for whether colours part at "
            "equal loss, and whether columns differ as colours do."
        ),
        looks(7.0, 8.2, palette=palette("learning rates"), metric=_COSINE, pair_mode=_TRAIN_VAL),
        tables=("runs", "history", "summary", "critical_length"),
        settings=_RATES | {"optimizer": "optimizer", "batch_size": "batch_size"} | _SPACE,
        across="experiments",
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every kind of figure by name, in the order in which pages list them."""


def lacking(settings: Mapping[str, Any], experiment: str, kind: str) -> str:
    """Why a kind of figure does not exist for an experiment, and the key to set; "" if it does."""
    if kind == "claims":
        return "claims are drawn once for all experiments: results/claims.png"
    entry = settings["experiments"][experiment]
    return KINDS[kind].lacking(experiment, entry, settings["datasets"][entry["dataset"]])


def check_figure(
    key: str, settings: Mapping[str, Any], experiment: str, kind: str, stage: Any = None
) -> None:
    """Whether a kind of figure, of a stage where one is named, exists for an experiment.

    Args:
        key: where the figure is asked for, for the message.
        settings: as ``read_settings`` gives them; "experiments" and "datasets" are enough.
        stage: the number of a stage, from 1, or "last".

    Raises:
        StiffnessError: the experiment lacks what the kind needs, or the kind shows no single stage,
            or the experiment has fewer stages.
    """
    lacks = lacking(settings, experiment, kind)
    if lacks:
        raise StiffnessError(f"{key}: {lacks}")
    if stage is not None and not KINDS[kind].by_stage:
        known = ", ".join(name for name, one in KINDS.items() if one.by_stage)
        raise StiffnessError(f"{key}: {kind} has no single stage; the kinds that do: {known}")
    number = len(settings["experiments"][experiment]["stages"])
    if isinstance(stage, int) and not 1 <= stage <= number:
        raise StiffnessError(
            f"{key}: {experiment} has no stage {stage}; take 1 to {number}, or last"
        )
