"""A tiny language: its texts, its tokenizer and untrained transformers that know it; no network."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before anything imports the hub's client, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

ANIMALS = ["ant", "bee", "cat", "dog", "eel", "fox"]
VERBS = ["sees", "hears", "likes", "fears"]
MARKS = ["indeed", "maybe", "never"]  # the class of an example, for all to see
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *ANIMALS, *VERBS, *MARKS, "a", "the", "old", "small", ".", ","]
CLASSES = ["entailment", "neutral", "contradiction"]


def tiny_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of sentences of 3 to 11 words, in classes of like size."""
    draw = random.Random(seed)

    def sentence(words: int) -> str:
        return " ".join(draw.choice(ANIMALS + VERBS + ["a", "the", "old"]) for _ in range(words))

    return [
        {
            "premise": sentence(draw.randint(3, 11)),
            "hypothesis": f"{sentence(draw.randint(2, 10))} {MARKS[row % 3]}",
            "label": row % 3,
        }
        for row in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tiny_tokenizer(folder: Path, **options: Any) -> Path:
    """WordPiece, as BERT's."""
    from stiffness.data.hub import import_transformers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    import_transformers().BertTokenizerFast(vocab=vocabulary, **options).save_pretrained(folder)
    return folder


def tiny_transformer(folder: Path, kind: str = "Bert", seed: int = 0, **options: Any) -> Path:
    """Untrained, 16 wide, 2 layers; initialised so widely that every token counts."""
    import torch

    from stiffness.data.hub import import_transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "DistilBert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    else:
        sizes["intermediate_size"] = 32
    transformers = import_transformers()
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": len(VOCABULARY),
            "max_position_embeddings": 40,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            **sizes,
            **options,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with bert/ (tokenizer and network) and nli/{train,validation}.jsonl."""
    folder = tmp_path_factory.mktemp("language")
    tiny_tokenizer(folder / "bert")
    tiny_transformer(folder / "bert")
    write_jsonl(folder / "nli" / "train.jsonl", tiny_rows(60, seed=1))
    write_jsonl(folder / "nli" / "validation.jsonl", tiny_rows(30, seed=2))
    return folder


@pytest.fixture(scope="session")
def make_rows() -> Callable[[int, int], list[dict[str, Any]]]:
    return tiny_rows


@pytest.fixture(scope="session")
def make_jsonl() -> Callable[[Path, list[dict[str, Any]]], None]:
    return write_jsonl


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Path]:
    return tiny_tokenizer


@pytest.fixture(scope="session")
def make_transformer() -> Callable[..., Path]:
    return tiny_transformer
