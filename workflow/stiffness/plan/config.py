"""Every setting of config.yaml, once: its type, bounds, default, description and message.

The models say what a section may hold; the text below a key is its description. What depends on
several sections (names that must exist, defaults that follow from the data set, totals that cannot
be meant) is checked by the functions after the models. ``workflow/schemas/generate.py`` writes the
JSON schema for editors and docs/configuration.md from the models.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    WrapValidator,
    create_model,
)

from stiffness.data.sources import TEXTS, AnyDataSet, data_set
from stiffness.errors import StiffnessError
from stiffness.own_code import check_import_path, is_import_path
from stiffness.plan.checkpoints import with_found
from stiffness.plan.kinds import KINDS, ClaimsLooks, check_figure
from stiffness.section import (
    AS_GIVEN,
    Count,
    NotNegative,
    Section,
    Seed,
    Several,
    Share,
    Text,
    describe_errors,
    nearest,
)

RULES = Path(__file__).parents[2] / "rules"
# Networks of images: what training/models.py registers, read as text since torch is slow to import.
_MODELS = (Path(__file__).parents[1] / "training" / "models.py").read_text()
NETWORKS = re.findall(r"^@network\ndef build_(\w+)", _MODELS, re.MULTILINE)
LAST_HIDDEN = "last_hidden"
MAX_JOBS = 20_000
"""Jobs of gradients of one experiment."""
MAX_CHECKPOINTS = 10_000
"""Checkpoints of one training."""


def says(rule: str) -> WrapValidator:
    """Replace any complaint about a value by the value and ``rule``."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"{value!r} {rule}") from None

    return WrapValidator(check)


def _positive(rate: str) -> str:
    if not 0 < float(rate) < math.inf:
        raise ValueError("not positive")
    return rate


def _typed(value: Any) -> Any:
    """`--config key=true` comes as a text; Snakemake itself reads True and False alone."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_typed)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[
    str,
    AfterValidator(_positive),
    Field(pattern=r"^(?=[0.]*[1-9])(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    says('is not a positive number in quotes, such as "1e-3"'),
]
Memory = Annotated[
    str,
    Field(pattern=r"^\d+(\.\d+)?\s*([KMG]i?B|B)$"),
    says('is no amount of memory, such as "4GiB"'),
]


def _optional(schema: dict[str, Any]) -> None:
    schema.pop("required", None)  # `defaults` may have what an experiment lacks


class Model(Section, json_schema_extra=_optional):
    """The network of an experiment."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            json_schema_extra={
                "anyOf": [{"enum": [*NETWORKS, "transformer"]}, {"type": "string"}],
                "examples": ["torchvision:resnet18", "nets.py:build"],
            },
        ),
    ]
    """One of the paper's networks; `torchvision:resnet18` and the like; `timm:...` where timm is
    installed; `file.py:function` or `package.module:function`, called with
    `(input_shape, num_classes, **arguments)`; or a pretrained transformer with a new
    head: its folder below data_dir, its name on the Hugging Face hub, or `transformer` and a
    `path`."""
    arguments: dict[str, Any] = Field({})
    """Further arguments of a network that is not one of the paper's."""
    path: str = ""
    """Of `transformer`: a folder below data_dir, or a name on the Hugging Face hub."""
    initialization: Literal["glorot_uniform", "pytorch"] = Field(
        default_factory=lambda given: (
            "glorot_uniform" if given.get("name") in NETWORKS else "pytorch"
        ),
        json_schema_extra={
            "x-default": "`glorot_uniform` for the paper's networks, else `pytorch`"
        },
    )
    """Keras's default, with zero biases, or as the network's own code draws its weights."""
    padding: Literal["valid", "same"] = "valid"
    """Of the CNN: Keras's default, or `same` for images of less than 22 pixels."""
    blocks: Annotated[int, Field(ge=1, le=100)] = 3
    """Of each of the ResNet's three stages; 1 makes the small ResNet8v1."""
    batch_norm: bool = False
    """Of the ResNet; the paper uses none."""
    input_scale: Literal["unit_norm", "unit_variance"] = "unit_norm"
    """The norm of an input X: 1 as in the paper, or the square root of its number of values."""
    zero_init_residual: bool = False
    """Starts the residual branches of the ResNet at 0."""


class Optimizer(Section):
    """The optimiser of an experiment; the paper's is Adam at a constant rate."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimiser."""
    momentum: Share = 0
    """Of sgd."""
    weight_decay: NotNegative = 0
    """An L2 penalty with adam and sgd, decoupled with adamw."""
    warmup_epochs: NotNegative = 0
    """Epochs, or a fraction of one, over which the learning rate rises linearly."""


class Loss(Section):
    """The loss of an experiment: it is trained on, and stiffness is that of its gradients."""

    name: Text = "cross_entropy"
    """`cross_entropy`, or the import path of a function of outputs [N, classes] and targets [N]
    that returns a loss per example, [N]: `file.py:function` or `package.module:function`."""
    label_smoothing: Share = 0
    """Of cross_entropy: the share of each label that is spread evenly over all classes."""


Measured = Literal["none", "stages", "checkpoints"]


class Evaluation(Section):
    """The examples that stiffness is measured on."""

    train: Count = 500
    """Training examples, in equal shares of every class."""
    validation: Count = 500
    """Validation examples, in equal shares of every class."""
    seed: Seed = 0
    """Seed of the draw."""
    shards: Annotated[int, Field(ge=1, le=100)] = 1
    """Parts that the examples are cut into. Every pair of parts is a job, which holds no other
    examples; results are the same."""
    all: Measured = "none"
    """Where cosine stiffness is also measured over all pairs of the whole training set, for the
    reference learning rate."""


class Bootstrap(Section):
    """Resamples of the evaluation examples, for 95 % intervals."""

    resamples: Annotated[int, Field(ge=40, le=100_000)] = 1000
    """Number of resamples."""
    seed: Seed = 0
    """Seed of the draw."""


class Accuracy(Section):
    """The first checkpoint that reaches a validation accuracy, or else the most accurate one."""

    accuracy: Annotated[float, Field(gt=0, le=1), AS_GIVEN]


Stage = Annotated[
    NotNegative | Literal["last"] | Accuracy,
    says('is no stage; give an epoch, "last" or {accuracy: 0.35}'),
]


def _middle(given: dict[str, Any]) -> str:
    rates = sorted(given["learning_rates"], key=float)
    return str(rates[(len(rates) - 1) // 2])


def _bins(given: dict[str, Any]) -> int:
    subset = given["evaluation"]
    return int(min(16, max(4, (subset.train + subset.validation) // 20)))


class Experiment(Section, json_schema_extra=_optional):
    """One network on one data set, trained at every learning rate and from every seed."""

    dataset: Text
    """One of `datasets`."""
    model: Model
    """The network."""
    loss: Annotated[
        Loss,
        BeforeValidator(
            lambda value: {"name": value} if isinstance(value, str) else value,
            json_schema_input_type=Loss | str,
        ),
    ] = Loss()
    """Cross-entropy, or a loss of your own: `losses.py:focal` is short for `{name: ...}`."""
    checkpoints: Text | None = None
    """In place of training: files of one trained elsewhere, such as
    `runs/lr={lr}/seed={seed}/step={step}.pt` or `epoch={epoch}.safetensors`. Learning rates, seeds
    and epochs follow from their names; `batch_size` is the one they were trained with."""
    epochs: Epochs
    """Passes over the training set."""
    learning_rates: Annotated[list[Rate], Field(min_length=1)] = Field(
        ["1e-4", "3e-4", "1e-3", "2e-3", "3e-3"]
    )
    """In quotes, so that one rate has one spelling and one folder of results."""
    reference_learning_rate: Rate = Field(
        default_factory=_middle, json_schema_extra={"x-default": "the middle one"}
    )
    """The learning rate that figures of a single rate show."""
    seeds: Several[Seed] = Field([0])
    """Seeds of initialisation and data order; results are averaged over them."""
    epochs_per_job: Epochs = 20
    """A training is a chain of jobs of so many epochs; a finished one is never repeated."""
    early_checkpoints: Annotated[int, Field(ge=0, le=1000)] = 8
    """Checkpoints in the first epoch, at steps in even ratios."""
    checkpoint_interval: Annotated[float, Field(ge=1e-4), AS_GIVEN] = 1
    """Epochs from one checkpoint to the next; 0.1 makes ten per epoch."""
    batch_size: Count = 32
    """Examples per step."""
    optimizer: Optimizer = Optimizer()
    """The optimiser."""
    mixed_precision: bool = False
    """bfloat16 products in training; gradients for stiffness are never measured so."""
    training_arithmetic: Literal["float32", "keras"] = "float32"
    """Arithmetic of the loss gradient in training: PyTorch's cross-entropy of logits, or Keras's,
    which clips the softmax's output to [1e-7, 1 - 1e-7] and gives a clipped example no gradient."""
    history_examples: Annotated[int, Field(ge=0)] = 0
    """Examples of each set that losses and accuracies are measured on; 0 takes all."""
    augmentation: Literal["none", "crop_flip"] = "none"
    """Of the training images."""
    evaluation: Evaluation = Evaluation()
    """The examples that stiffness is measured on."""
    arithmetic: Several[
        Literal["exact", "float32", "keras", "bfloat16", "float64", "tf32", "naive"]
    ] = Field(["exact"])
    """Arithmetics of the loss gradient that stiffness is measured with, all on the same
    checkpoints; those beside `exact` show what rounding does."""
    distance_layers: Several[Text] = Field(
        default_factory=list,
        json_schema_extra={"x-default": f"`[input]`; for texts `[{LAST_HIDDEN}]`"},
    )
    """Where distances are measured: `input`, `last_hidden` (of a transformer), or layers of the
    network by name. Figures show the first."""
    distance_bins: Annotated[int, Field(ge=1, le=1000)] = Field(
        default_factory=_bins,
        json_schema_extra={"x-default": "one per 20 evaluation examples, but 4 to 16"},
    )
    """Bins of equal width, from distance 0 to the farthest pair of one class."""
    bootstrap: Bootstrap = Bootstrap()
    """Resamples of the evaluation examples."""
    layer_stiffness: Measured = "none"
    """Where stiffness is also measured layer by layer, for the reference learning rate."""
    stages: Annotated[list[Stage], Field(min_length=1)] = Field([0, 0.03, 1, "last"])
    """Points in training that figures show: an epoch (its nearest checkpoint), `last`, or
    `{accuracy: 0.35}` (the first checkpoint that reaches this validation accuracy)."""


class PaperFigure(Section):
    """A figure of the paper, drawn for each of its experiments."""

    kind: Literal[tuple(name for name in KINDS if not KINDS[name].across)]  # type: ignore[valid-type]
    """Kind of figure."""
    experiments: Several[Text]
    """Names of experiments."""
    stage: Annotated[
        Count | Literal["last"] | None, says('is no stage; give 1, 2, ... or "last"')
    ] = Field(None, json_schema_extra={"x-default": "`last`"})
    """Of kinds that show one stage: its place in the experiment's `stages`, or `last`."""


class Study(Section):
    """One figure of several experiments, or any kind of figure of each of them."""

    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]
    """Kind of figure."""
    experiments: Several[Text]
    """Names of experiments, in the order in which the figure shows them."""


_LOOKS: dict[str, Any] = {name: kind.looks for name, kind in KINDS.items()}
_LOOKS["claims"] = ClaimsLooks
Figures = create_model(
    "Figures",
    __base__=Section,
    __doc__="Options of each kind of figure; a change redraws that kind and nothing else.",
    **{name: (looks, looks()) for name, looks in _LOOKS.items()},  # type: ignore[call-overload]
)
DataSetName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]+$"), says("cannot be a name; take letters, digits and _")
]
ExperimentName = Annotated[
    str,
    Field(pattern=r"^(?!(data|logs|studies)$)[A-Za-z0-9_]+$"),
    says("cannot be a name; take letters, digits and _, but not data, logs, studies"),
]
FigureName = Annotated[
    str,
    Field(pattern=r"^fig[A-Za-z0-9]+$"),
    says("cannot be a name; take fig and then letters or digits"),
]
StudyName = Annotated[
    str,
    Field(pattern=r"^(?!fig)[A-Za-z][A-Za-z0-9_]*$"),
    says("cannot be a name; take letters, digits and _, but do not begin with fig or a digit"),
]


class Config(Section, title="Configuration of the stiffness workflow"):
    """The whole of config.yaml."""

    data_dir: Text = "data"
    """Folder of raw data; those of torchvision are downloaded into it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    jobs_per_gpu: Annotated[int, Field(ge=1, le=100)] = 1
    """Jobs that share a GPU: small networks leave most of a large one idle."""
    memory_budget: Memory = "4GiB"
    """Memory for the per-example gradients held at once. Less is slower, not different."""
    keep_gradients: Switch = True
    """`false` deletes cosine matrices (4 N² bytes per checkpoint) once their tables are made."""
    archive_checkpoints: Switch = False
    """Whether `snakemake archive` packs checkpoints too."""
    run: Several[Text]
    """Experiments that a plain `snakemake` builds."""
    datasets: dict[
        DataSetName,
        AnyDataSet,
    ]
    """Data sets by name."""
    defaults: dict[str, Any] = Field({})
    """Keys for all experiments that do not set them themselves."""
    experiments: dict[ExperimentName, Experiment]
    """Experiments by name, which is their folder in `results`."""
    figures: Figures = Figures()  # type: ignore[valid-type]
    """Options of figures by kind."""
    paper: dict[FigureName, PaperFigure] = Field({})
    """Figures of the paper by name."""
    studies: dict[StudyName, Study] = Field({})
    """Figures across experiments by name."""


def read_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that config.yaml decides, checked, with every default filled in.

    Returns:
        Plain values under the keys of config.yaml: "experiments" holds whole experiments, and
        "figures" the options of every kind of figure. Keys without a value are left out.

    Raises:
        StiffnessError: the first thing that is wrong, by its key.
    """
    try:
        model = Config.model_validate(_with_defaults(config))
    except ValidationError as error:
        raise StiffnessError(describe_errors(error, config)) from None
    settings = model.model_dump(exclude_none=True)
    experiments, datasets = settings["experiments"], settings["datasets"]
    for name, options in datasets.items():
        if is_import_path(options["source"]):
            check_import_path(options["source"], f"datasets.{name}.source")
    for name, experiment in experiments.items():
        _known(experiment["dataset"], datasets, f"experiments.{name}.dataset", "data set")
        text = data_set(datasets[experiment["dataset"]]).inputs == TEXTS
        experiment["distance_layers"] = experiment["distance_layers"] or (
            [LAST_HIDDEN] if text else ["input"]
        )
        _check_network(f"experiments.{name}.model", experiment["model"], settings["data_dir"])
        _check_loss(f"experiments.{name}.loss", experiment)
        _check_experiment(f"experiments.{name}", experiment, text)
    for name in settings["run"]:
        _known(name, experiments, "run", "experiment")
    for figure, entry in settings["paper"].items():
        for name in entry["experiments"]:
            _known(name, experiments, f"paper.{figure}.experiments", "experiment")
            check_figure(f"paper.{figure}", settings, name, entry["kind"], entry.get("stage"))
    _check_studies(settings)
    return settings


def _check_studies(settings: Mapping[str, Any]) -> None:
    experiments, taken = settings["experiments"], rule_names()
    for study, entry in settings["studies"].items():
        if study in taken:
            raise StiffnessError(f"studies.{study}: a rule has this name; take another")
        for name in entry["experiments"]:
            _known(name, experiments, f"studies.{study}.experiments", "experiment")
            check_figure(f"studies.{study}", settings, name, entry["kind"])
        layers = {experiments[name]["distance_layers"][0] for name in entry["experiments"]}
        if entry["kind"] == "critical_lengths" and len(layers) > 1:
            raise StiffnessError(
                f"studies.{study}: the experiments measure distance in different layers "
                f"({', '.join(sorted(layers))}); set the same first of distance_layers"
            )


def rule_names() -> set[str]:
    """Names of the workflow's rules, which are commands too."""
    texts = [path.read_text() for path in RULES.glob("*.smk")]
    return {"all", *re.findall(r"^(?:use rule \w+ as|rule) (\w+)", "\n".join(texts), re.MULTILINE)}


def _check_experiment(key: str, experiment: Mapping[str, Any], text: bool) -> None:
    _check_inputs(key, experiment, text)
    spellings: dict[float, str] = {}
    for rate in experiment["learning_rates"]:
        if float(rate) in spellings:
            raise StiffnessError(
                f"{key}.learning_rates: {spellings[float(rate)]!r} and {rate!r} are the same "
                "rate; keep one"
            )
        spellings[float(rate)] = rate
    if experiment["reference_learning_rate"] not in experiment["learning_rates"]:
        raise StiffnessError(
            f"{key}.reference_learning_rate: {experiment['reference_learning_rate']!r} is not one "
            f"of learning_rates ({', '.join(experiment['learning_rates'])})"
        )
    _check_totals(key, experiment)


def _check_totals(key: str, experiment: Mapping[str, Any]) -> None:
    """Refuse what no computer can plan."""
    subset = experiment["evaluation"]
    examples = subset["train"] + subset["validation"]
    if subset["shards"] > examples:
        raise StiffnessError(
            f"{key}.evaluation.shards: {subset['shards']} of {examples} examples; "
            f"take {examples} at most"
        )
    checkpoints = experiment["epochs"] / experiment["checkpoint_interval"]
    if checkpoints > MAX_CHECKPOINTS and "checkpoints" not in experiment:
        raise StiffnessError(
            f"{key}.checkpoint_interval: {experiment['checkpoint_interval']} makes "
            f"{checkpoints:.0f} checkpoints of {experiment['epochs']} epochs; take "
            f"{experiment['epochs'] / MAX_CHECKPOINTS:g} or more, for {MAX_CHECKPOINTS} at most"
        )
    trainings = len(experiment["learning_rates"]) * len(experiment["seeds"])
    segments = -(-experiment["epochs"] // experiment["epochs_per_job"])
    segments = 1 if "checkpoints" in experiment else segments
    tiles = subset["shards"] * (subset["shards"] + 1) // 2 * len(experiment["arithmetic"])
    jobs = trainings * segments * tiles
    if jobs > MAX_JOBS:
        raise StiffnessError(
            f"{key}: {jobs} jobs of gradients ({trainings} trainings in {segments} parts, each "
            f"{tiles}); the most is {MAX_JOBS}: raise epochs_per_job, or lower evaluation.shards"
        )


def _check_network(key: str, model: dict[str, Any], data_dir: str) -> None:
    """Find out what the name of a network means; a transformer's own name becomes its path."""
    name = model["name"]
    package = name.partition(":")[0]
    if package != name and package not in ("torchvision", "timm"):
        if not is_import_path(name):
            raise StiffnessError(f"{key}.name: {name!r} is no import path, such as nets.py:build")
        check_import_path(name, f"{key}.name")
    elif package == name and name not in (*NETWORKS, "transformer"):
        if "/" not in name and not any(Path(place, name).is_dir() for place in (data_dir, ".")):
            known = (*NETWORKS, "transformer", "torchvision:...", "timm:...", "file.py:function")
            raise StiffnessError(f"{key}.name: unknown {name!r}{nearest(name, known)}")
        model |= {"name": "transformer", "path": name}
    if model["arguments"] and model["name"] in (*NETWORKS, "transformer"):
        raise StiffnessError(f"{key}.arguments: {model['name']} takes none; see its own keys")
    if not model["arguments"]:
        del model["arguments"]
    for option in ("padding", "batch_norm", "zero_init_residual"):
        if model["name"] not in NETWORKS and model[option] != Model.model_fields[option].default:
            raise StiffnessError(
                f"{key}.{option}: is of the paper's networks; give yours {key}.arguments"
            )


def _check_loss(key: str, experiment: Mapping[str, Any]) -> None:
    loss = experiment["loss"]
    name = loss["name"]
    keras = [*experiment["arithmetic"], experiment["training_arithmetic"]].count("keras")
    if keras and (name != "cross_entropy" or loss["label_smoothing"]):
        raise StiffnessError(f"{key}: the arithmetic keras is one of plain cross_entropy")
    if name == "cross_entropy":
        return
    if not is_import_path(name):
        raise StiffnessError(
            f"{key}: unknown {name!r}; take cross_entropy, or an import path such as losses.py:f"
        )
    check_import_path(name, key)
    if loss["label_smoothing"]:
        raise StiffnessError(f"{key}.label_smoothing: is of cross_entropy; {name} smooths itself")


def _check_inputs(key: str, experiment: Mapping[str, Any], text: bool) -> None:
    """Tokens and images take different networks and different options."""
    name, layers = experiment["model"]["name"], experiment["distance_layers"]
    if text and name in NETWORKS:
        raise StiffnessError(
            f"{key}.model.name: {name!r} does not take texts; take transformer, or your own"
        )
    if name == "transformer" and not experiment["model"]["path"]:
        raise StiffnessError(
            f"{key}.model.path: a transformer needs one: a folder below data_dir, or a name on the "
            "Hugging Face hub"
        )
    if text and experiment["augmentation"] != "none":
        raise StiffnessError(f"{key}.augmentation: is for images; set it to none")
    if text and "input" in layers:
        raise StiffnessError(
            f"{key}.distance_layers: tokens have no distance; name layers of the network, such as "
            f"[{LAST_HIDDEN}] or [bert.embeddings]"
        )


def _with_defaults(config: Any) -> Any:
    """The configuration with ``defaults``, and what checkpoints tell, laid under experiments."""
    if not isinstance(config, Mapping):
        return config
    given, defaults = config.get("experiments"), config.get("defaults", {})
    if not isinstance(given, Mapping) or not isinstance(defaults, Mapping):
        return dict(config)
    experiments = {name: lay_over(defaults, given[name]) for name in given}
    for name, experiment in experiments.items():
        if isinstance(experiment, Mapping) and isinstance(experiment.get("checkpoints"), str):
            experiments[name] = with_found(experiment, f"experiments.{name}")
    return {**config, "experiments": experiments}


def lay_over(base: Any, over: Any) -> Any:
    """Lay a configuration over another, key by key, as Snakemake does."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: lay_over(base.get(key), value) for key, value in over.items()}}


def _known(name: str, known: Mapping[str, Any], key: str, what: str) -> None:
    if name not in known:
        raise StiffnessError(f"{key}: unknown {what} {name!r}{nearest(name, known)}")
