"""``StiffnessMonitor`` in a training loop: what it measures, and that it leaves no trace."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from stiffness import StiffnessError, StiffnessMonitor, StiffnessWarning, gradient_cosines
from stiffness.measures.tables import COLUMNS
from stiffness.monitor.isolation import measuring, unwrapped

RESAMPLES = 40


def data(number: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(number) % 3
    x = torch.randn(number, 1, 6, 6, generator=generator) + y[:, None, None, None]
    return x, y


def network() -> nn.Module:
    """With all that training changes beside weights: running statistics, and chance."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def monitor_of(**options) -> StiffnessMonitor:
    x, y = data()
    return StiffnessMonitor(
        train=(x[:30], y[:30]), validation=(x[30:], y[30:]), resamples=RESAMPLES, **options
    )


@pytest.fixture
def monitor() -> StiffnessMonitor:
    return monitor_of()


def train(monitor: StiffnessMonitor | None, autocast: bool = False) -> dict[str, torch.Tensor]:
    """Two epochs with two batches per update, measured between the two; all random states count."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    model = network().train()
    model[2].eval()  # somebody's own choice
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = data()
    losses = []
    for step in range(6):
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
        for half in (0, 1):
            rows = torch.randperm(60)[:16]
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows]) * (1 + 0.01 * noise)
                if monitor is not None and half == 0:
                    monitor.measure(model, step)  # amid an update
                    assert torch.is_autocast_enabled("cpu") == autocast
            loss.backward()
            losses.append(loss.detach())
            if monitor is not None and half == 0:
                monitor.measure(model, 100 + step)  # with half of the gradient
        optimizer.step()
        optimizer.zero_grad()
    return {**model.state_dict(), "losses": torch.stack(losses)}


@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_ends_with_the_same_bits(monitor, autocast):
    watched, alone = train(monitor, autocast), train(None, autocast)
    assert len(monitor.seconds) == 12
    for name, tensor in alone.items():
        assert torch.equal(watched[name], tensor), name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_everything_is_as_it_was(monitor, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = network().to(device).train()
    model[1].eval()
    model[1].requires_grad_(False)
    model[5].weight.grad = torch.full_like(model[5].weight, 0.5)
    calls = []
    handle = model[5].register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(7)
    before = {
        "modes": [module.training for module in model.modules()],
        "required": [one.requires_grad for one in model.parameters()],
        "gradients": [one.grad for one in model.parameters()],
        "buffers": [one.clone() for one in model.buffers()],
        "weights": [one.clone() for one in model.parameters()],
        "hooks": [hooks_of(module) for module in model.modules()],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device == "cuda" else [],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
    }
    with torch.no_grad():
        monitor.measure(model, 0)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        monitor.measure(model, 1)
    handle.remove()
    assert calls, "the hooks of a network are part of it"
    assert [module.training for module in model.modules()] == before["modes"]
    assert [one.requires_grad for one in model.parameters()] == before["required"]
    for one, other in zip(model.parameters(), before["gradients"], strict=True):
        assert one.grad is other
    assert bool((model[5].weight.grad == 0.5).all())
    for name, tensors in (("buffers", model.buffers()), ("weights", model.parameters())):
        for one, other in zip(tensors, before[name], strict=True):
            assert torch.equal(one, other), name
            assert not one.is_inference()
    model[5].register_forward_hook(lambda *_: None)  # as many as there were
    assert [hooks_of(module) for module in model.modules()] == before["hooks"]
    assert torch.equal(torch.get_rng_state(), before["torch"])
    if device == "cuda":
        for one, other in zip(torch.cuda.get_rng_state_all(), before["cuda"], strict=True):
            assert torch.equal(one, other)
    assert random.getstate() == before["python"]
    assert np.random.get_state()[1].tolist() == before["numpy"]  # noqa: NPY002


def hooks_of(module: nn.Module) -> list[int]:
    return [len(value) for name, value in vars(module).items() if name.endswith("_hooks")]


def test_a_network_that_draws_and_counts_is_put_back():
    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", None)

        def forward(self, x):
            self.calls += 1
            self.last = torch.rand(2)
            random.random()
            np.random.rand()  # noqa: NPY002
            return self.inner(x)

    model = Restless()
    torch.manual_seed(0)
    expected = [torch.rand(2), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
    torch.manual_seed(0)
    with measuring(model):
        model(torch.randn(4, 3))
        assert model.calls == 1
    assert model.calls == 0
    assert model.last is None
    assert torch.equal(torch.rand(2), expected[0])
    assert random.getstate() == expected[1]
    assert np.random.get_state()[1].tolist() == expected[2]  # noqa: NPY002


def test_a_train_method_of_a_modules_own_is_not_called():
    # LoRA layers of some libraries add their weights up there, and subtract them again.
    class Merging(nn.Linear):
        def train(self, mode: bool = True):
            raise AssertionError("called")

    model = nn.Sequential(Merging(3, 2), nn.Dropout(0.5))
    with measuring(model):
        assert not model[1].training
    assert model[1].training


def test_it_measures_what_the_workflow_does(monitor):
    model = network().train()
    values = monitor.measure(model, step=3, epoch=0.5)
    x, y = data()
    cosines, _ = gradient_cosines(model.eval(), x, y)
    same = (y[:30, None] == y[30:]).numpy()
    block = cosines[:30, 30:].double().numpy()
    by_class = [
        block[(y[:30] == label).numpy()][:, (y[30:] == label).numpy()].mean() for label in range(3)
    ]
    # Means of the same float32 cosines in float64.
    assert values["stiffness/within/cosine/train-val"] == pytest.approx(np.mean(by_class), abs=1e-6)
    assert values["stiffness/within/sign/train-val"] == pytest.approx(
        np.mean(
            [
                np.sign(block[(y[:30] == label).numpy()][:, (y[30:] == label).numpy()]).mean()
                for label in range(3)
            ]
        ),
        abs=1e-6,
    )
    assert same.any()
    table = monitor.table
    assert list(table.columns) == COLUMNS["summary"]
    assert len(values) == len(table) + 1
    assert set(table["step"]) == {3}
    assert set(table["epoch"]) == {0.5}
    assert {name: list(one.columns) for name, one in monitor.tables.items()} == COLUMNS
    assert len(monitor.tables["classes"]) == 3 * 3 * 6
    assert not monitor.tables["critical_length"].empty


def test_a_step_is_measured_once(monitor):
    model = network()
    assert monitor.measure(model, 1)
    with pytest.warns(StiffnessWarning, match="step 1: left out: it has been measured"):
        assert monitor.measure(model, 1) == {}
    assert len(monitor.table) == 18


def test_wrappers_are_looked_through(monitor):
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, x):
            raise AssertionError("not through the wrapper")

    model = network()
    wrapped = nn.DataParallel(Wrapper(model))
    assert unwrapped(wrapped) is model
    assert monitor.measure(wrapped, 0)


def test_a_wrapped_forward_in_mixed_precision_is_looked_through(monitor):
    # As accelerate prepares a model.
    model, other = network(), monitor_of()
    exact = other.measure(model, 0)
    model._original_forward = model.forward
    model.forward = torch.autocast("cpu", torch.bfloat16)(model._original_forward)
    wrapped = model.forward
    found = monitor.measure(model, 0)
    assert model.forward is wrapped
    for name in exact:
        if "seconds" not in name:
            assert found[name] == exact[name], name


# --- labels, texts, distances --------------------------------------------------------------------


def test_labels_may_be_names_and_targets_anything():
    x, y = data()
    outputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    names = np.array(["ant", "bee", "cat"])[y]
    monitor = StiffnessMonitor(
        train=(x[:30].numpy(), outputs[:30]),
        validation=(x[30:].numpy(), outputs[30:]),
        labels=(names[:30], list(names[30:])),
        loss=lambda outputs, targets: ((outputs - targets) ** 2).sum(1),
        resamples=RESAMPLES,
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    assert monitor.measure(model, 0)
    assert set(monitor.tables["classes"]["class_a"]) == {"ant", "bee", "cat"}


def test_distances_can_be_those_of_a_layer():
    monitor = monitor_of(distance_layers=["4", "input"])
    assert monitor.measure(network(), 0)
    assert list(monitor.tables["critical_length"]["layer"].unique()) == ["4", "input"]


def test_arguments_that_do_not_fit_are_named():
    x, y = data()
    both = {"train": (x, y), "validation": (x, y)}
    with pytest.raises(StiffnessError, match="60 inputs, but 59 targets"):
        StiffnessMonitor(train=(x, y[1:]), validation=(x, y))
    with pytest.raises(StiffnessError, match=r"labels: the targets, \[60, 1\], are no classes"):
        StiffnessMonitor(train=(x, y[:, None]), validation=(x, y[:, None]))
    with pytest.raises(StiffnessError, match=r"labels: \[60, 1\] for \[60, 60\]"):
        StiffnessMonitor(**both, labels=(y, y[:1]))


# --- cost ----------------------------------------------------------------------------------------


class Slow(nn.Module):
    """Waits for every example of a forward pass, so that a clock sees it."""

    def __init__(self, pause: float):
        super().__init__()
        self.inner, self.pause = network(), pause

    def forward(self, x):
        import time

        time.sleep(self.pause * len(x))
        return self.inner(x)


def test_it_says_what_a_measurement_costs(monitor):
    model = network()
    assert monitor.estimate_seconds(model) > 0
    assert monitor.table.empty
    values = monitor.measure(model, 0)
    assert values["stiffness/seconds"] == monitor.seconds[0] == monitor.estimate_seconds(model)


def test_the_first_measurement_is_left_out_where_it_would_take_too_long():
    monitor, model = monitor_of(max_seconds=0.02), Slow(0.002)
    with pytest.warns(
        StiffnessWarning, match=r"step 5: left out: .* max_seconds is 0.02; give few"
    ):
        assert monitor.measure(model, 5) == {}
    assert monitor.table.empty
    assert not monitor.seconds


def test_later_ones_are_left_out_by_what_the_others_have_taken():
    monitor, model = monitor_of(max_seconds=1000.0), network()
    assert monitor.measure(model, 0)
    monitor.max_seconds = min(monitor.seconds.values()) / 2
    with pytest.warns(StiffnessWarning, match="step 1: left out: a measurement takes about"):
        assert monitor.measure(model, 1) == {}
    assert set(monitor.table["step"]) == {0}


def test_a_network_that_diverges_ends_no_training(monitor):
    model = network()
    with torch.no_grad():
        model[5].bias[0] = torch.nan
    with pytest.raises(StiffnessError, match="not finite"):
        monitor.measure(model, 0)
    assert monitor.measure(network(), 1)
    with pytest.warns(StiffnessWarning, match="step 2: left out: .* not finite"):
        assert monitor.measure(model, 2) == {}
    assert model[5].bias.grad is None


# --- drawing -------------------------------------------------------------------------------------


def test_plot_draws_all_and_changes_nothing_outside(monitor, tmp_path):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    for step in range(3):
        monitor.measure(network(), step, step / 2)
    before, backend = dict(mpl.rcParams), mpl.get_backend()
    figure = monitor.plot()
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend
    assert not plt.get_fignums()
    axes = figure.get_axes()
    assert len(axes) == 4
    assert all(len(axis.get_lines()) >= 3 for axis in axes)
    assert axes[2].get_xlabel() == "epoch"
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "stiffness.png")
    assert (tmp_path / "stiffness.png").stat().st_size > 10_000


def test_plot_shows_steps_where_epochs_are_unknown(monitor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.measure(network(), 4)
        assert monitor.plot().get_axes()[2].get_xlabel() == "step"
