"""Every path below ``results``, once; names in braces are wildcards of the rules."""

DATA = "results/data/{dataset}"
ARRAYS = f"{DATA}/arrays.safetensors"
HIERARCHY = f"{DATA}/hierarchy.yaml"
EVALUATION = (
    f"{DATA}/evaluation/train={{train}}_validation={{validation}}_seed={{subset_seed}}.safetensors"
)

RUN = "results/{experiment}/lr={lr}/seed={seed}"
CHECKPOINTS = f"{RUN}/checkpoints/{{segment}}"
STATE = f"{CHECKPOINTS}/state.safetensors"
HISTORY = f"{CHECKPOINTS}/history.parquet"
GRADIENTS = f"{RUN}/gradients/{{arithmetic}}/{{segment}}"
TILE = f"{GRADIENTS}/tiles/{{tile}}"
REPRESENTATIONS = f"{RUN}/representations/{{segment}}"
WHOLE_SET = f"{RUN}/whole_set/{{segment}}.parquet"
LAYER_GRADIENTS = f"{RUN}/layer_gradients/{{arithmetic}}/{{segment}}"
MEASURE = f"{RUN}/measures/{{arithmetic}}/{{segment}}/{{name}}.parquet"
REPLICATES = f"{RUN}/measures/{{arithmetic}}/{{segment}}/replicates.safetensors"
LAYER_MEASURE = f"{RUN}/layer_stiffness/{{arithmetic}}/{{segment}}/{{name}}.parquet"

TABLE = "results/{experiment}/tables/{arithmetic}/{name}.parquet"
PROVENANCE = "results/{experiment}/provenance.yaml"
FIGURE = "results/{experiment}/figures/{kind}.{suffix}"
STAGE_FIGURE = "results/{experiment}/figures/{kind}/stage={stage}.{suffix}"
STUDY = "results/studies/{study}.{suffix}"
CLAIMS = "results/claims.{suffix}"
ARCHIVE = "results/archive.zip"

OF_RUN = "{experiment}/lr={lr}/seed={seed}/{segment}"
"""Wildcards of a job that works on one segment of a training; see ``log``."""
OF_ARITHMETIC = "{experiment}/lr={lr}/seed={seed}/{arithmetic}/{segment}"

MEASURES = (
    "summary",
    "classes",
    "distance",
    "critical_length",
    "extremes",
    "siblings",
    "confidence",
    "examples",
)
"""Tables of one segment."""
LAYER_MEASURES = ("summary", "distance", "critical_length")
TABLES = (
    "runs",
    "history",
    "summary",
    "distance",
    "critical_length",
    "siblings",
    "confidence",
)
"""Tables of an experiment."""
COMPARISONS = ("levels", "order", "stopping")
"""Tables of an experiment that compare its learning rates."""


class _Open(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return f"{{{key}}}"


def fill(pattern: str, **values: object) -> str:
    """Put values in the place of wildcards; those without a value stay."""
    return pattern.format_map(_Open(values))


def each(pattern: str, names: tuple[str, ...]) -> dict[str, str]:
    """A pattern by each of the names that its wildcard ``name`` takes."""
    return {name: fill(pattern, name=name) for name in names}


def log(rule: str, wildcards: str) -> str:
    """The log of a rule's job; its record lies beside it."""
    return f"results/logs/{rule}/{wildcards}.log"
