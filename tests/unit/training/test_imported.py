import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.files import read_table, read_tensors
from stiffness.training.imported import fit_weights, import_checkpoints, read_weights
from stiffness.training.models import ModelSpec, build_model
from stiffness.training.specs import TrainingSpec
from stiffness.training.train import HISTORY, checkpoint_name, train_segment

CPU = torch.device("cpu")
SPEC = TrainingSpec(ModelSpec("fc"), "1e-3", 0, batch_size=200, early_checkpoints=1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 3)
        self.tied = nn.Linear(4, 3, bias=False)
        self.tied.weight = self.head.weight


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.fixture
def model() -> Net:
    return Net()


FORMS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "part compiled": lambda state: {
        name.replace("body.", "body._orig_mod."): value for name, value in state.items()
    },
    "Lightning": lambda state: {
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "hyper_parameters": {"width": 4},
    },
    "all of them": lambda state: {
        "state_dict": {f"model.module._orig_mod.{name}": value for name, value in state.items()}
    },
    "tied once": lambda state: {k: v for k, v in state.items() if k != "tied.weight"},
    "before counts": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_whatever_was_wrapped_around_them(form, model, tmp_path):
    torch.save(FORMS[form](model.state_dict()), tmp_path / "c.pt")
    found = fit_weights(read_weights(tmp_path / "c.pt"), model, "c.pt")
    assert same(found, model.state_dict())


def test_safetensors(model, tmp_path):
    state = {name: value for name, value in model.state_dict().items() if name != "tied.weight"}
    save_file(state, tmp_path / "c.safetensors")
    found = fit_weights(read_weights(tmp_path / "c.safetensors"), model, "c")
    assert same(found, model.state_dict())


def test_missing_surplus_and_misshapen_parameters_are_named(model):
    weights = model.state_dict()
    del weights["body.0.bias"]
    weights |= {"extra.scale": torch.ones(1), "head.bias": torch.ones(7)}
    with pytest.raises(StiffnessError) as caught:
        fit_weights(weights, model, "runs/a.pt")
    assert str(caught.value) == (
        "checkpoints: runs/a.pt: does not fit the network: it lacks body.0.bias; it has also "
        "extra.scale; head.bias is [7] there and [3] in the network"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no checkpoint", "c.pt: "),
        (b"", "c.pt: not readable"),
        ([1, 2], "c.pt: holds no named tensors"),
        ({"epoch": 3}, "c.pt: holds no named tensors"),
        (nn.Linear(2, 2), "c.pt: holds more than tensors"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_refused(content, message, tmp_path):
    file = tmp_path / "c.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(StiffnessError, match=message) as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harm").touch, ())

    torch.save({"weight": Harm()}, tmp_path / "c.pt")
    with pytest.raises(StiffnessError):
        read_weights(tmp_path / "c.pt")
    assert not (tmp_path / "harm").exists()


def test_an_import_has_the_history_of_the_training_it_came_from(few_digits, tmp_path):
    trained = tmp_path / "checkpoints" / "epochs=0000-0002"
    train_segment(few_digits, SPEC, 0, 2, None, trained, CPU)
    history = read_table(trained / HISTORY)
    files, points = [], []
    for step, epoch in zip(history["step"], history["epoch"], strict=True):
        weights = read_tensors(trained / checkpoint_name(step))[0]
        files.append(tmp_path / f"{step}.pt")
        torch.save({"model": weights}, files[-1])
        points.append((int(step), None) if step % 2 else (None, float(epoch)))
    imported = tmp_path / "imported"
    import_checkpoints(few_digits, SPEC, files, points, imported, CPU)
    # The same computation done twice.
    assert read_table(imported / HISTORY).equals(history)
    for step in history["step"]:
        theirs, ours = (read_tensors(f / checkpoint_name(step)) for f in (trained, imported))
        assert same(ours[0], theirs[0])
        assert ours[1] == theirs[1]


def test_a_scaled_network_of_another_takes_its_own_names(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n"
        "def build(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], classes))\n"
    )
    spec = ModelSpec("own_net.py:build", input_scale="unit_variance")
    inner = build_model(ModelSpec("own_net.py:build"), few_digits.shape, 10, seed=4)
    torch.save(inner.state_dict(), tmp_path / "1.pt")
    training = TrainingSpec(spec, "1e-3", 0, batch_size=200, early_checkpoints=0)
    import_checkpoints(few_digits, training, ["1.pt"], [(1, None)], tmp_path / "out", CPU)
    weights = read_tensors(tmp_path / "out" / checkpoint_name(1))[0]
    assert torch.equal(weights["1.1.weight"], inner.state_dict()["1.weight"])
