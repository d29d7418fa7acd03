"""What the user sees when a job fails."""

import errno

import pytest
import torch

from stiffness.errors import StiffnessError, report_errors


def ended(error: BaseException) -> str:
    """The message with which ``reported`` ends the process; a string code exits with status 1."""
    with pytest.raises(SystemExit) as exit, report_errors("training"):
        raise error
    assert isinstance(exit.value.code, str)
    assert len(exit.value.code.splitlines()) == 1
    return exit.value.code


def test_bad_input_is_one_line_that_names_the_rule():
    message = ended(StiffnessError("run: unknown experiment 'x'"))
    assert message == "error in training: run: unknown experiment 'x'"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line_that_names_the_file(code):
    message = ended(OSError(code, "No space left on device", "results/a.safetensors"))
    assert "error in training: no room on the disk" in message
    assert "results/a.safetensors" in message


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_no_access_is_one_line_that_names_the_file(code):
    message = ended(OSError(code, "denied", "results/a.safetensors"))
    assert "error in training: no access to results/a.safetensors" in message
    assert "--directory" in message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_no_memory_is_one_line_that_says_what_to_lower(error):
    message = ended(error)
    assert message.startswith("error in training: out of memory")
    assert str(error).splitlines()[0] in message
    assert "memory_budget" in message


def test_full_disk_without_a_file_name():
    message = ended(OSError(errno.ENOSPC, "No space left on device"))
    assert "no room on the disk;" in message
    assert "None" not in message


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), OSError(errno.EIO, "broken", "x"), RuntimeError("x"), KeyboardInterrupt()],
    ids=repr,
)
def test_everything_else_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised, report_errors("training"):
        raise error
    assert raised.value is error


def test_success_is_silent(capsys):
    with report_errors("training"):
        pass
    assert capsys.readouterr() == ("", "")
