"""Devices, and the flags that decide float32's precision on them."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch

from stiffness.device import full_float32
from stiffness.errors import StiffnessError
from stiffness.jobs import gpus as module
from stiffness.jobs.gpus import choose_device, take_gpu


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Pretend that there is a GPU, or that there is none."""
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    names = [f"{tmp_path} {index}" for index in range(2)]
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=names[index])
    )
    monkeypatch.setattr(module, "_reserved_gpu", cache(module._reserved_gpu.__wrapped__))

    def pretend(present: bool) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
        return current

    return pretend


@pytest.mark.parametrize(
    ("name", "present", "kind"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_choice(gpu, name, present, kind):
    gpu(present)
    assert choose_device(name).type == kind


@pytest.mark.parametrize("driver", [True, False])
def test_auto_says_so_where_torch_cannot_use_the_driver(gpu, monkeypatch, caplog, driver):
    gpu(False)
    monkeypatch.setattr(module, "gpu_driver_present", lambda: driver)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    said = [record.message for record in caplog.records]
    assert len(said) == driver
    assert all(torch.__version__ in line and "computing on the CPU" in line for line in said)


def test_a_process_keeps_its_gpu_and_makes_it_the_current_one(gpu):
    current = gpu(True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:0")
    assert set(current) == {torch.device("cuda:0")}


def test_a_gpu_that_another_job_has_is_not_taken(gpu, tmp_path):
    gpu(True)
    assert take_gpu([f"{tmp_path} 0"]) == 0
    assert choose_device("cuda") == torch.device("cuda:1")


def test_cuda_without_a_gpu_names_the_key(gpu):
    gpu(False)
    with pytest.raises(StiffnessError, match=r"^device: cuda asked for but .* no GPU") as raised:
        choose_device("cuda")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_full_float32_within_any_matmul_precision(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with full_float32():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def restore_flags():
    before = flags()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("matmul", [False, True])
@pytest.mark.parametrize("cudnn", [False, True])
def test_full_float32_puts_the_flags_back(restore_flags, matmul, cudnn):
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn
    with full_float32():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert flags() == (matmul, cudnn)


def test_full_float32_puts_the_flags_back_after_an_error(restore_flags):
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert flags() == (True, True)
