"""Images and texts of Hugging Face ``datasets``: from a folder, or from the hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stiffness.data.arrays import Arrays
from stiffness.data.hub import import_transformers, local_or_hub, reason
from stiffness.data.images import image_array
from stiffness.data.own import as_arrays
from stiffness.data.text import SPLITS, encode_texts
from stiffness.errors import StiffnessError


def load_huggingface(
    data_dir: str | Path,
    name: str,
    label: str = "label",
    class_names: Sequence[str] | None = None,
    image: str | None = None,
    channels: int = 3,
    image_size: int | None = None,
    columns: Sequence[str] | None = None,
    tokenizer: str | None = None,
    max_length: int | None = None,
    subset: str | None = None,
    splits: Mapping[str, str] | None = None,
) -> Arrays:
    """Read a set of images, or of texts. No code that comes with it is run.

    Args:
        name: a folder below ``data_dir`` that ``save_to_disk`` wrote or that ``load_dataset``
            reads, or a name on the hub.
        label: the column of labels, numbers or names of classes.
        class_names: by default those of the label, where it has names.
        image: the column of images; None for texts.
        channels, image_size: of images; see ``load_image_folder``.
        columns, tokenizer, max_length: of texts; see ``load_text``.
        subset: the configuration of the data set, where it has several.
        splits: its names of "train" and "validation".

    Raises:
        StiffnessError: there is no such data set, set or column, or what is in it does not fit.
    """
    wanted = {split: (splits or {}).get(split, split) for split in SPLITS}
    sets = {split: _read(name, subset, wanted[split], data_dir) for split in SPLITS}
    for split, rows in sets.items():
        for column in (label, *(columns or [str(image)])):
            if column not in rows.column_names:
                known = ", ".join(rows.column_names)
                raise StiffnessError(
                    f"{name}: {wanted[split]}: no column {column!r}; there are: {known}"
                )
    feature = sets["train"].features[label]
    names = list(class_names or getattr(feature, "names", None) or [])
    if columns:
        assert tokenizer is not None
        assert max_length is not None
        tables = {split: rows.to_pandas() for split, rows in sets.items()}
        names = names or sorted({str(value) for value in tables["train"][label]})
        where = {split: f"{name}: {wanted[split]}" for split in SPLITS}
        return encode_texts(tables, where, columns, label, names, tokenizer, max_length, data_dir)
    images = {
        split: _images(rows[image], f"{name}: {wanted[split]}", channels, image_size)
        for split, rows in sets.items()
    }
    try:
        return as_arrays(
            images["train"],
            sets["train"].with_format(None)[label][:],
            images["validation"],
            sets["validation"].with_format(None)[label][:],
            names or None,
        )
    except StiffnessError as error:
        raise StiffnessError(f"{name}: {error}") from None


def _read(name: str, subset: str | None, split: str, data_dir: str | Path) -> Any:
    """The rows of one set."""
    import_transformers()
    import datasets

    datasets.disable_progress_bars()
    place = local_or_hub(name, data_dir)
    local = Path(place).is_dir()
    try:
        if local and (Path(place) / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(place)
            if split not in found:
                raise StiffnessError(
                    f"{name}: no set {split!r}; there are: {', '.join(found)}; set splits"
                )
            return found[split]
        return datasets.load_dataset(place, subset, split=split)
    except StiffnessError:
        raise
    except Exception as error:  # no network, no such data set, no such split: many kinds
        where = f"the folder {place}" if local else "the Hugging Face hub"
        advice = "correct name, subset or splits" if local else "put a folder below data_dir"
        raise StiffnessError(
            f"name: {name!r}, split {split!r}: {where} did not give it ({reason(error)}); {advice}"
        ) from None


def _images(column: Any, where: str, channels: int, image_size: int | None) -> np.ndarray:
    """uint8 [N, channels, height, width]."""
    images: list[np.ndarray] = []
    for row, image in enumerate(column):
        try:
            images.append(image_array(image, channels, image_size))
        except (AttributeError, OSError, ValueError) as error:
            raise StiffnessError(f"{where}: row {row + 1}: no readable image ({error})") from None
        if images[row].shape != images[0].shape:
            size, first = (" x ".join(map(str, one.shape[1:])) for one in (images[row], images[0]))
            raise StiffnessError(
                f"{where}: row {row + 1}: {size} pixels, others have {first}; set image_size"
            )
    return np.stack(images) if images else np.zeros((0, channels, 1, 1), np.uint8)
