"""One cell of the benchmark in a process of its own, so that its peak memory is its own.

    python benchmarks/cell.py fc 1000 ours --budget 512MiB --threads 2

prints a line of JSON: seconds on the clock, seconds of processor time, the peak of resident memory
in bytes beyond the model, the data and the result, and the chunk of a peer, which is tuned here.
"""

import argparse
import json
import time
import warnings
from functools import partial

import torch
from methods import OWN, PEERS, PeerGram, best_chunk
from networks import Network, build
from peak import resident, settle

from stiffness.data.batch import length, take
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import make_plan


def work(network: Network) -> dict[str, float]:
    """Flops of one pair's product in the cheapest form of every layer, and flops a second."""
    count = length(network.inputs)
    plan = make_plan(network.model, network.inputs, OutputGrads(network.targets), count, 2**32)
    flops = 2 * sum(unit.pair_cost for unit in plan.units.values())
    size = 2000
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        torch.mm(left, right)
        seconds.append(time.process_time() - began)
    rate = 2 * size**3 / min(seconds) * torch.get_num_threads()
    return {"flops_a_pair": flops, "flops_a_second": rate, "seconds": 0, "cpu_seconds": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("count", type=int)
    parser.add_argument("method")
    parser.add_argument("--budget", default="4GiB")
    parser.add_argument("--chunk", type=int, help="examples per pass of a peer; tuned by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--save", help="safetensors file for the matrix")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    network = build(options.network, options.count)
    if options.method == "work":
        print(json.dumps(work(network)))
        return
    model, inputs, targets = network.model, network.inputs, network.targets
    few, chunk = slice(0, 2), None
    # The first call loads libraries and compiles kernels: they are no working memory.
    if options.method in PEERS:
        gradients = PEERS[options.method](model)
        gradients(take(inputs, few), targets[few])
        chunk = options.chunk or best_chunk(gradients, inputs, targets)
        before = settle()
        size = sum(p.numel() for p in model.parameters())
        run = PeerGram(gradients, inputs, targets, size, chunk)
    else:
        own = OWN[options.method]
        own(model, take(inputs, few), targets[few], options.budget)
        before = settle()
        run = partial(own, model, inputs, targets, options.budget)
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    for repeat in range(options.repeats):
        began, began_cpu = time.perf_counter(), time.process_time()
        result = run()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - began_cpu)
        if repeat == 0:
            peak = resident("VmHWM") - before
            peak -= result.numel() * result.element_size() if result is not None else 0
    if options.save and result is not None:
        from safetensors.torch import save_file

        save_file({"gram": result}, options.save)
    print(
        json.dumps(
            {
                "seconds": min(seconds),
                "cpu_seconds": min(cpu_seconds),
                "peak": peak,
                "examples": length(inputs),
                "chunk": chunk,
            }
        )
    )


if __name__ == "__main__":
    main()
