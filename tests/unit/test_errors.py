"""What the user sees when a job fails."""

import errno

import pytest

from stiffness.errors import StiffnessError, reported


def ended(error: BaseException) -> str:
    """The message with which ``reported`` ends the process; a string code exits with status 1."""
    with pytest.raises(SystemExit) as exit, reported("training"):
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


def test_full_disk_without_a_file_name():
    message = ended(OSError(errno.ENOSPC, "No space left on device"))
    assert "no room on the disk;" in message
    assert "None" not in message


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), PermissionError(errno.EACCES, "denied", "x"), KeyboardInterrupt()],
    ids=repr,
)
def test_everything_else_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised, reported("training"):
        raise error
    assert raised.value is error


def test_success_is_silent(capsys):
    with reported("training"):
        pass
    assert capsys.readouterr() == ("", "")
