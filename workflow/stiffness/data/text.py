"""Labelled sentences or pairs of sentences to tokens: local files or the Hugging Face hub."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.hub import import_transformers, load_pretrained, reason
from stiffness.errors import StiffnessError

SPLITS = ("train", "validation")
# Nothing but an empty cell is missing: "None" and "n/a" are texts, and MNLI has both.
_READERS: dict[str, Callable[..., Any]] = {
    ".jsonl": partial(pd.read_json, lines=True, dtype=False),
    ".json": partial(pd.read_json, orient="records", dtype=False),
    ".csv": partial(pd.read_csv, keep_default_na=False, na_values=[""], low_memory=False),
    ".parquet": pd.read_parquet,
}
_NO_LABEL = (-1, "-1", "-", "")
_CHUNK = 10_000  # texts tokenised at once: as lists of numbers they take much room


def load_text(
    data_dir: str | Path,
    columns: Sequence[str],
    label: str,
    class_names: Sequence[str],
    tokenizer: str,
    max_length: int,
    path: str | None = None,
    hub: str | None = None,
    subset: str | None = None,
    splits: Mapping[str, str] | None = None,
) -> Arrays:
    """Read texts, tokenise them, and pad them to the longest one.

    Args:
        columns: one column of text, or two that form a pair (premise, hypothesis).
        label: the column of labels: names from ``class_names``, or their numbers, from 0. Rows
            without a label (none, -1 or "-") are left out.
        tokenizer: a local folder or a name on the hub; the one that the model was trained with.
        max_length: texts are truncated to this many tokens.
        path: folder below ``data_dir`` with train.* and validation.* (jsonl, json, csv, parquet).
        hub: name of a data set on the hub, used where that folder does not exist.
        subset: the configuration of that data set, where it has several.
        splits: the hub's names of "train" and "validation".

    Raises:
        StiffnessError: no data, a missing column, an unknown label, a row without a text, or no
            tokenizer.
    """
    folder = Path(data_dir) / path if path is not None else None
    if folder is not None and folder.is_dir():
        sources = {split: _find_file(folder, split) for split in SPLITS}
        tables = {split: _read_file(file, columns) for split, file in sources.items()}
        names = {split: str(file) for split, file in sources.items()}
    elif hub is not None:
        names = {split: (splits or {}).get(split, split) for split in SPLITS}
        tables = {split: _read_hub(hub, subset, name, folder) for split, name in names.items()}
        names = {split: f"{hub}: {name}" for split, name in names.items()}
    else:
        raise StiffnessError(
            f"{folder or 'datasets: path'}: no such folder; put train.jsonl and validation.jsonl "
            "there, or name a data set of the Hugging Face hub with the key hub"
        )
    return encode_texts(tables, names, columns, label, class_names, tokenizer, max_length, data_dir)


def encode_texts(
    tables: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    columns: Sequence[str],
    label: str,
    class_names: Sequence[str],
    tokenizer: str,
    max_length: int,
    data_dir: str | Path,
) -> Arrays:
    """Tokenise texts in tables, and pad them to the longest one.

    Args:
        tables: rows of the sets "train" and "validation".
        names: what messages call the two.

    The other arguments, and what is raised, are those of ``load_text``.
    """
    parts = {
        split: _select_labelled(tables[split], names[split], columns, label, class_names)
        for split in SPLITS
    }
    encoder = load_pretrained("AutoTokenizer", "tokenizer", tokenizer, data_dir)
    encoded = {split: _tokenize(encoder, texts, max_length) for split, (texts, _) in parts.items()}
    longest = max(int(tokens["attention_mask"].sum(1).max()) for tokens in encoded.values())
    padded = {split: _pad_or_cut(tokens, longest, encoder) for split, tokens in encoded.items()}
    return Arrays.from_tokens(
        padded["train"],
        parts["train"][1],
        padded["validation"],
        parts["validation"][1],
        list(class_names),
    )


def _find_file(folder: Path, split: str) -> Path:
    files = [folder / f"{split}{suffix}" for suffix in _READERS]
    there = [file for file in files if file.is_file()]
    if len(there) != 1:
        names = ", ".join(file.name for file in there or files)
        raise StiffnessError(
            f"{folder}: {f'has {names}; keep' if there else f'has none of {names}; put'} one there"
        )
    return there[0]


def _read_file(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    # In a csv file, "007" is a text too.
    options = {"dtype": dict.fromkeys(columns, str)} if file.suffix == ".csv" else {}
    try:
        return _READERS[file.suffix](file, **options)
    except (ValueError, OSError) as error:
        raise StiffnessError(f"{file}: not readable as a table ({reason(error)})") from None


def _read_hub(name: str, subset: str | None, split: str, folder: Path | None) -> pd.DataFrame:
    import_transformers()
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, subset, split=split).to_pandas()
    except Exception as error:  # no network, no such data set, no such split: many kinds
        wanted = f"put train.jsonl and validation.jsonl into {folder}" if folder else "set path"
        raise StiffnessError(
            f"hub: {name!r}, split {split!r}: the Hugging Face hub did not give it "
            f"({reason(error)}); {wanted}, or correct hub, subset or splits"
        ) from None


def _select_labelled(
    table: pd.DataFrame,
    source: str,
    columns: Sequence[str],
    label: str,
    class_names: Sequence[str],
) -> tuple[list[list[str]], torch.Tensor]:
    """Texts of each column, and class numbers [N], for the N rows that have a label."""
    for column in (*columns, label):
        if column not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise StiffnessError(f"{source}: no column {column!r}; there are: {known}")
    count = range(len(class_names))
    targets: dict[Hashable, int] = {str(number): number for number in count}
    targets |= {number: number for number in count}
    targets |= {name: number for number, name in enumerate(class_names)}
    unlabelled = {value for value in _NO_LABEL if value not in targets}
    rows, numbers = [], []
    for row, value in enumerate(table[label].tolist()):
        known_kind = isinstance(value, Hashable)
        if known_kind and value in targets:
            rows.append(row)
            numbers.append(targets[value])
        elif not known_kind or not (value in unlabelled or pd.isna(value)):
            raise StiffnessError(
                f"{source}: row {row + 1}: label {value!r} is not one of class_names "
                f"({', '.join(class_names)}), nor the number of one"
            )
    if not rows:
        raise StiffnessError(f"{source}: no row has a label in column {label!r}")
    texts = []
    for column in columns:
        cells = table[column].iloc[rows]
        missing = cells.isna().to_numpy()
        if missing.any():
            raise StiffnessError(
                f"{source}: row {rows[int(missing.argmax())] + 1} has no text in column "
                f"{column!r}; fill it in, or leave the row out"
            )
        texts.append(cells.astype(str).tolist())
    return texts, torch.tensor(numbers)


def _tokenize(encoder: Any, texts: list[list[str]], max_length: int) -> dict[str, torch.Tensor]:
    """Tokens, int32 [N, T] by the network's names, padded on the right to the longest text."""
    if encoder.pad_token is None:
        raise StiffnessError(
            "tokenizer: it has no padding token, so examples cannot form a batch; take another, or "
            "add one to its folder"
        )
    if max_length <= encoder.num_special_tokens_to_add(pair=len(texts) > 1):
        raise StiffnessError(f"max_length: {max_length} tokens leave no room for a text")
    parts = []
    for begin in range(0, len(texts[0]), _CHUNK):
        encoded = encoder(
            *(column[begin : begin + _CHUNK] for column in texts),
            truncation=True,
            max_length=max_length,
            padding="longest",
            padding_side="right",
            return_attention_mask=True,
            return_tensors="pt",
        )
        parts.append({name: encoded[name].int() for name in encoded})
    longest = max(part["input_ids"].shape[1] for part in parts)
    resized = [_pad_or_cut(part, longest, encoder) for part in parts]
    return {name: torch.cat([part[name] for part in resized]) for name in parts[0]}


def _pad_or_cut(
    tokens: Mapping[str, torch.Tensor], width: int, encoder: Any
) -> dict[str, torch.Tensor]:
    """Tokens [N, width]: padded, or cut where there is only padding."""
    fill = {"input_ids": encoder.pad_token_id, "token_type_ids": encoder.pad_token_type_id}
    return {
        name: torch.nn.functional.pad(
            value, (0, width - value.shape[1]), value=fill.get(name, 0)
        ).contiguous()
        for name, value in tokens.items()
    }
