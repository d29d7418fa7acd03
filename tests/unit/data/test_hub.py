"""Pretrained models and tokenizers: a folder, or else the hub, which no test can reach."""

import errno
import shutil

import pytest

from stiffness.data.hub import import_transformers, load_pretrained, local_or_hub, reason
from stiffness.errors import StiffnessError


def complaint(kind: str, key: str, name: str, data_dir) -> str:
    with pytest.raises(StiffnessError) as raised:
        load_pretrained(kind, key, name, data_dir)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_folder_below_data_dir_comes_first_then_one_here_then_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_or_hub("a/b", "data") == "a/b"
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert local_or_hub("a/b", "data") == "a/b"
    assert local_or_hub("b", "a") == "a/b"
    (tmp_path / "data" / "a" / "b").mkdir(parents=True)
    assert local_or_hub("a/b", "data") == "data/a/b"


@pytest.mark.parametrize(
    ("kind", "key"),
    [("AutoTokenizer", "tokenizer"), ("AutoModelForSequenceClassification", "model.path")],
)
def test_neither_a_folder_nor_a_hub_names_the_key_and_both_places(tmp_path, kind, key):
    message = complaint(kind, key, "nobody/nothing", tmp_path)
    assert message.startswith(f"{key}: 'nobody/nothing': there is no such folder in {tmp_path}")
    assert "the Hugging Face hub did not give it" in message
    assert message.endswith(
        f"set {key} to a local folder with the files of a transformers model, or to a name on "
        "the hub"
    )


def test_an_empty_name_is_not_data_dir_itself(tiny_language):
    message = complaint("AutoTokenizer", "tokenizer", "", tiny_language / "bert")
    assert message.startswith("tokenizer: is empty")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b"not safetensors"),
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "unheard_of"}'),
    ],
    ids=str,
)
def test_a_broken_model_folder_is_named(tiny_language, tmp_path, file, content):
    folder = shutil.copytree(tiny_language / "bert", tmp_path / "bert")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    message = complaint("AutoModelForSequenceClassification", "model.path", "bert", tmp_path)
    assert message.startswith(f"model.path: 'bert': the folder {folder} cannot be read (")


def test_a_broken_tokenizer_is_named(tiny_language, tmp_path):
    folder = shutil.copytree(tiny_language / "bert", tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{")
    message = complaint("AutoTokenizer", "tokenizer", "bert", tmp_path)
    assert message.startswith(f"tokenizer: 'bert': the folder {folder} cannot be read (")


def test_a_full_disk_stays_one(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(import_transformers().AutoTokenizer, "from_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        load_pretrained("AutoTokenizer", "tokenizer", "nobody/nothing", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One thing. Another thing.", "One thing"),
        ("No module 'a.b'\nis here: see v. 2", "No module 'a.b' is here"),
        ("", "ValueError"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_reason_is_one_short_sentence(text, expected):
    assert reason(ValueError(text)) == expected
