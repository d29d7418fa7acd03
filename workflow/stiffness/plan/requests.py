"""What jobs ask of a scheduler: memory in MB, time in minutes, before anything has run.

Bounds, not forecasts: about five times what one slow core was seen to take. A job that a scheduler
ends for more is tried again with more; what is asked for changes no result.
"""

import re
from collections.abc import Mapping
from typing import Any

# Python, torch, and a GPU's libraries, which take as much again.
_PROCESS = 1500
_GPU_LIBRARIES = 2500

# Minutes per epoch, and MB of the data set's arrays.
_TRAINING: Mapping[str, float] = {"fc": 0.01, "cnn": 0.02, "resnet20v1": 0.06, "transformer": 1.0}
# Minutes a checkpoint and 1,000 x 1,000 pairs.
_GRADIENTS: Mapping[str, float] = {"fc": 0.1, "cnn": 0.1, "resnet20v1": 0.2, "transformer": 20.0}
# MB of a network, its gradient, Adam's state and a batch's activations; small ones need no line.
_NETWORK: Mapping[str, int] = {"transformer": 8000}


def training_threads(cores: int | None, runs: int, gpu: bool) -> int:
    """Threads of one training: a run that is alone on a machine uses all of it.

    The runs of an experiment share the cores evenly, whether all of them are still to be trained or
    one: sums over several threads differ from sums over others in their last bits, and a training
    must come out the same each time that it is made on one machine with the same ``--cores``.

    Args:
        cores: that Snakemake may use on this machine; None where jobs run on other machines, which
            get one core for each, or as many as ``--set-threads training=N`` says.
        runs: learning rates times seeds of the experiment.
        gpu: whether a GPU does the work, and leaves the cores to other jobs.

    Returns:
        At least 1.
    """
    return 1 if gpu or cores is None else max(1, cores // runs)


def training_request(
    model: str, arrays_mb: float, epochs: int, gpu: bool, attempt: int
) -> dict[str, int]:
    """Memory and time of a segment of a training.

    Args:
        model: name of the network; one that is not known here is taken for a ResNet.
        arrays_mb: size of the data set's arrays on the disk; held as float32 they are four times
            as large, and preprocessing makes two more copies.
        attempt: 1, then one more each time that the job has failed.
    """
    memory = _process(gpu) + _NETWORK.get(model, 0) + 12 * arrays_mb
    minutes = 10 + _TRAINING.get(model, _TRAINING["resnet20v1"]) * epochs * arrays_mb
    return _grown(memory, minutes, attempt)


def gradients_request(
    model: str,
    examples: int,
    shards: int,
    checkpoints: int,
    budget: int,
    gpu: bool,
    attempt: int,
) -> dict[str, int]:
    """Memory and time of the cosines of ``examples`` gradients at each of ``checkpoints``.

    Args:
        shards: parts that the examples are cut into; of a pair of them.
        budget: bytes of per-example gradients held at once.
    """
    pairs = _shard(examples, shards) ** 2
    memory = _process(gpu) + _NETWORK.get(model, 0) + (budget + 24 * pairs) / 1e6
    rate = _GRADIENTS.get(model, _GRADIENTS["resnet20v1"])
    return _grown(memory, 10 + rate * checkpoints * pairs / 1e6, attempt)


def measures_request(
    examples: int, shards: int, checkpoints: int, resamples: int, attempt: int
) -> dict[str, int]:
    """Memory and time of the tables of ``checkpoints`` cosine matrices.

    Args:
        shards: parts that the examples are cut into; a pair of them is held at once.
    """
    pairs = examples**2
    # A tile, as float64 and more; the resamples' weights; pairs of one class, of two or more.
    memory = 80 * _shard(examples, shards) ** 2 + 4 * examples * resamples + 8 * pairs
    return _grown(_PROCESS + memory / 1e6, 10 + 0.02 * checkpoints * pairs / 1e6, attempt)


def checkpoints(experiment: Mapping[str, Any], segment: str) -> int:
    """How many checkpoints a segment of an experiment's training has, at most."""
    start, end = map(int, re.findall(r"\d+", segment))
    early = 0 if start else 2 + experiment["early_checkpoints"]
    return early + 1 + round((end - start) / experiment["checkpoint_interval"])


def _shard(examples: int, shards: int) -> int:
    """Examples of the largest."""
    return -(-examples // shards)


def _process(gpu: bool) -> int:
    return _PROCESS + (_GPU_LIBRARIES if gpu else 0)


def _grown(memory: float, minutes: float, attempt: int) -> dict[str, int]:
    return {"mem_mb": attempt * round(memory), "runtime": attempt * round(minutes)}
