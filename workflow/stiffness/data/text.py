"""Labelled sentences or pairs of sentences to tokens: local files or the Hugging Face hub."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stiffness.data.arrays import Arrays
from stiffness.errors import StiffnessError
from stiffness.hub import import_transformers, load_pretrained

SPLITS = ("train", "validation")
_READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def load_text(
    data_dir: str | Path,
    columns: Sequence[str],
    label: str,
    class_names: Sequence[str],
    tokenizer: str,
    max_length: int,
    path: str | None = None,
    hub: str | None = None,
    splits: Mapping[str, str] | None = None,
) -> Arrays:
    """Read, tokenise, truncate to ``max_length`` tokens, and pad to the longest that is left.

    Args:
        columns: one column of text, or two that form a pair (premise, hypothesis).
        label: the column of labels: numbers that count ``class_names``, or the names themselves.
            Rows whose label is -1 or missing have none, and are left out.
        tokenizer: a local folder or a name on the hub; the one that the model was trained with.
        path: folder below ``data_dir`` with train.* and validation.* (jsonl, json, csv, parquet).
        hub: name of a data set on the hub, where that folder does not exist.
        splits: the hub's names of "train" and "validation".

    Raises:
        StiffnessError: no data, a missing column, an unknown label, or no tokenizer.
    """
    folder = Path(data_dir) / path if path is not None else None
    if folder is not None and folder.is_dir():
        tables = {split: _read_file(folder, split) for split in SPLITS}
    elif hub is not None:
        chosen = {split: (splits or {}).get(split, split) for split in SPLITS}
        tables = {split: _read_hub(hub, name, folder) for split, name in chosen.items()}
    else:
        raise StiffnessError(
            f"{folder}: no such folder; put train.jsonl and validation.jsonl there, or name a data "
            "set of the Hugging Face hub with the key hub"
        )
    encoder = load_pretrained("AutoTokenizer", "datasets: tokenizer", tokenizer, data_dir)
    texts, targets = {}, {}
    for split, table in tables.items():
        source = f"{folder if folder is not None and folder.is_dir() else hub}: {split}"
        texts[split], targets[split] = _labelled(table, source, columns, label, class_names)
    encoded = {split: _encode(encoder, texts[split], max_length) for split in SPLITS}
    longest = max(int(tokens["attention_mask"].sum(1).max()) for tokens in encoded.values())
    padded = {split: _resized(tokens, longest, encoder) for split, tokens in encoded.items()}
    return Arrays.of_tokens(
        padded["train"],
        targets["train"],
        padded["validation"],
        targets["validation"],
        list(class_names),
    )


def _read_file(folder: Path, split: str) -> Any:
    files = [folder / f"{split}{suffix}" for suffix in _READERS]
    there = [file for file in files if file.is_file()]
    if len(there) != 1:
        names = ", ".join(file.name for file in there or files)
        raise StiffnessError(
            f"{folder}: {'several of' if there else 'none of'} {names}; keep one of them"
        )
    datasets = _datasets()
    # The reader leaves a copy of what it reads; that copy is of no use to anybody.
    with tempfile.TemporaryDirectory() as cache:
        try:
            return datasets.load_dataset(
                _READERS[there[0].suffix],
                data_files=str(there[0]),
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
            ).to_pandas()
        except Exception as error:  # datasets wraps each reader's own exceptions in several kinds
            cause = error.__cause__ or error
            reason = " ".join(str(cause).split())[:200]
            raise StiffnessError(f"{there[0]}: not readable as a table ({reason})") from None


def _read_hub(name: str, split: str, folder: Path | None) -> Any:
    try:
        return _datasets().load_dataset(name, split=split).to_pandas()
    except Exception as error:  # no network, no such data set, no such split: many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        wanted = f"put train.jsonl and validation.jsonl into {folder}" if folder else "set path"
        raise StiffnessError(
            f"datasets: hub: {name!r}, split {split!r}: the Hugging Face hub did not give it "
            f"({reason}); {wanted}, or correct the name"
        ) from None


def _datasets() -> Any:
    import_transformers()
    import datasets

    datasets.disable_progress_bars()
    return datasets


def _labelled(
    table: Any, source: str, columns: Sequence[str], label: str, class_names: Sequence[str]
) -> tuple[list[list[str]], torch.Tensor]:
    """Texts by column, and class numbers, of the rows that have a label."""
    for column in (*columns, label):
        if column not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise StiffnessError(f"{source}: no column {column!r}; there are: {known}")
    table = table[table[label].notna() & (table[label] != -1)]
    numbers = {name: number for number, name in enumerate(class_names)}
    given = table[label]
    if given.dtype.kind in "iuf":
        wrong = given[~given.isin(range(len(class_names)))]
        targets = given
    else:
        wrong = given[~given.isin(class_names)]
        targets = given.map(numbers)
    if len(wrong):
        raise StiffnessError(
            f"{source}: label {wrong.iloc[0]!r} is not one of class_names "
            f"({', '.join(class_names)}), nor the number of one"
        )
    if not len(table):
        raise StiffnessError(f"{source}: no row has a label")
    for column in columns:
        missing = table[column].isna()
        if missing.any():
            raise StiffnessError(
                f"{source}: row {missing.idxmax() + 1} has no text in column {column!r}"
            )
    texts = [table[column].astype(str).tolist() for column in columns]
    return texts, torch.from_numpy(targets.to_numpy(dtype=np.int64, copy=True))


def _encode(encoder: Any, texts: list[list[str]], max_length: int) -> dict[str, torch.Tensor]:
    if encoder.pad_token is None:
        raise StiffnessError(
            "datasets: tokenizer: it has no padding token, so examples cannot form a batch; "
            "take another, or add one to its folder"
        )
    encoded = encoder(
        *texts,
        truncation=True,
        max_length=max_length,
        padding="longest",
        padding_side="right",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {name: encoded[name].int() for name in encoded}


def _resized(
    tokens: Mapping[str, torch.Tensor], width: int, encoder: Any
) -> dict[str, torch.Tensor]:
    """Padded, or cut where there is only padding, to [N, width]."""
    fill = {"input_ids": encoder.pad_token_id, "token_type_ids": encoder.pad_token_type_id}
    return {
        name: torch.nn.functional.pad(
            value, (0, width - value.shape[1]), value=fill.get(name, 0)
        ).contiguous()
        for name, value in tokens.items()
    }
