"""The benchmark measures what its peers do, and no work of its own."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stiffness import gradient_gram

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from methods import PEERS, PeerGram, best_chunk
from networks import Network, bert, build


def gram(network: Network, peer: str, chunk: int) -> PeerGram:
    size = sum(p.numel() for p in network.model.parameters())
    gradients = PEERS[peer](network.model)
    return PeerGram(gradients, network.inputs, network.targets, size, chunk)


def encoder() -> Network:
    torch.manual_seed(0)
    return bert(1, 16, 2, 6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("chunk", [4, 6])
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("make", [lambda: build("cnn", 6), encoder], ids=["cnn", "encoder"])
def test_every_peer_gives_the_matrix(make: Callable[[], Network], peer: str, chunk: int) -> None:
    if peer != "vmap":
        pytest.importorskip(peer)
    if peer == "backpack" and make is encoder:
        pytest.skip("BackPACK cannot convert it")
    network = make()
    expected = gradient_gram(network.model, network.inputs, network.targets)
    found = gram(network, peer, chunk)()
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_the_best_chunk_is_the_one_with_the_least_time_per_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, tried, clock = build("cnn", 20), [], [0.0]

    def gradients(inputs: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
        tried.append(len(inputs))
        clock[0] += 1 if len(inputs) == 8 else len(inputs)
        return []

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert best_chunk(gradients, network.inputs, network.targets) == 8
    assert tried == [chunk for chunk in (1, 2, 4, 8, 16, 20) for _ in range(3)]


@pytest.mark.slow
def test_vmap_takes_the_time_of_a_loop_written_by_hand() -> None:
    network, chunk = build("cnn", 256), 64
    model, inputs, targets = network.model, network.inputs, network.targets
    parameters = dict(model.named_parameters())

    def by_hand() -> torch.Tensor:
        def loss(params, x, y):
            outputs = torch.func.functional_call(model, params, (x[None],))
            return torch.nn.functional.cross_entropy(outputs, y[None])

        gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        detached = {name: p.detach() for name, p in parameters.items()}
        parts = []
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            found = gradient(detached, x, y)
            parts.append(torch.cat([g.flatten(1) for g in found.values()], 1))
        rows = torch.cat(parts).numpy()
        return torch.from_numpy(rows @ rows.T)

    ways = {"benchmark": gram(network, "vmap", chunk), "by hand": by_hand}
    torch.testing.assert_close(ways["benchmark"](), ways["by hand"]())
    seconds = {name: [] for name in ways}
    for _ in range(9):  # in turns, so that whatever else runs slows both
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    ratio = min(seconds["benchmark"]) / min(seconds["by hand"])
    assert 0.75 < ratio < 1.25
