"""Where raw data come from: every source once, with its options in config.yaml and its reader.

A further source is one class here: its fields are its options, ``read`` reads it. The plan imports
this module too, so that torch, numpy and the like are imported by the readers alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from stiffness.data.hub import local_or_hub
from stiffness.errors import StiffnessError
from stiffness.fingerprint import content_fingerprint, folder_fingerprint
from stiffness.own_code import is_import_path
from stiffness.section import UNIQUE, Count, Section, Seed, Share, Text, describe_errors

if TYPE_CHECKING:
    from stiffness.data.arrays import Arrays

IMAGES, TEXTS = "images", "texts"
OWN = "file.py:function"
"""Stands for any import path among the names of sources."""
Names = Annotated[list[Text], Field(min_length=2), UNIQUE]


class LabelNoise(Section):
    """Training labels that are made wrong; validation labels stay as they are."""

    share: Share
    """Share of the labels. Of 10 classes, 0.9 makes labels independent of inputs."""
    seed: Seed
    """Seed of the draw."""


class DataSet(Section):
    """Any source."""

    inputs: ClassVar[str] = IMAGES
    """What a network gets: images, texts, or "" where that is not known before they are read."""
    source: str
    """Where the raw data come from: see the sections below."""
    train_examples: Count | None = None
    """Draws so many training examples, in equal shares of every class."""
    seed: Seed | None = Field(None, json_schema_extra={"x-default": "0"})
    """Seed of that draw."""
    label_noise: LabelNoise | None = None
    """Makes a share of the training labels wrong."""
    hierarchy: Text | None = None
    """YAML file with groups of the classes, relative to the project."""

    @model_validator(mode="after")
    def _seed_of_the_draw(self) -> Self:
        if self.train_examples is None and self.seed is not None:
            raise ValueError("seed is that of train_examples; set that too, or leave seed out")
        if self.train_examples is not None and self.seed is None:
            self.seed = 0
        return self

    def read(self, data_dir: Path) -> "Arrays":
        """Read the raw data.

        Args:
            data_dir: the folder of the raw data.

        Raises:
            StiffnessError: they are not there, or not as they should be.
        """
        raise NotImplementedError

    def fingerprint(self, data_dir: Path) -> Any:
        """What changes when a user's own raw data do; others are checked against checksums."""
        return ""


class Digits(DataSet):
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships."""

    source: Literal["digits"]
    validation_examples: Count
    """Size of the validation set."""
    seed: Seed
    """Seed of the split, and of the draw of train_examples."""

    @model_validator(mode="after")
    def _seed_of_the_draw(self) -> Self:
        return self

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.images import load_digits

        return load_digits(self.validation_examples, self.seed)


class Torchvision(DataSet):
    """A data set of torchvision, downloaded into data_dir where it is not there."""

    source: Literal["torchvision"]
    name: Literal["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"]
    """Torchvision's name of the data set."""

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.images import load_torchvision

        return load_torchvision(self.name, data_dir)


class ImageFolder(DataSet):
    """Your own images, train/CLASS/* and test/CLASS/* below a folder."""

    source: Literal["image_folder"]
    path: Text
    """The folder, relative to data_dir."""
    channels: Literal[1, 3] = 3
    """1 makes images grey, 3 makes them coloured."""
    image_size: Count | None = None
    """Resizes images to so many pixels square; without it all must have one size."""

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.images import load_image_folder

        return load_image_folder(self.path, self.channels, self.image_size, data_dir)

    def fingerprint(self, data_dir: Path) -> Any:
        return folder_fingerprint(data_dir / self.path)


class Texts(DataSet):
    """Labelled texts or pairs of texts: files train.* and validation.* (jsonl, json, csv or
    parquet) below a folder, or a data set of the Hugging Face hub."""

    inputs: ClassVar[str] = TEXTS
    source: Literal["text"]
    path: Text | None = None
    """The folder, relative to data_dir."""
    hub: Text | None = None
    """Name on the Hugging Face hub, asked where the folder does not exist."""
    subset: Text | None = None
    """The part of the hub's data set, where it has several."""
    splits: dict[Literal["train", "validation"], Text] | None = None
    """The hub's names of the two sets, `{train: ..., validation: ...}`."""
    columns: Annotated[list[Text], Field(min_length=1, max_length=2), UNIQUE]
    """The column of texts, or the two that form a pair."""
    label: Text
    """The column of labels: numbers or names of classes."""
    class_names: Names
    """Names of the classes, in the order of their numbers."""
    tokenizer: Text
    """The network's own: a folder below data_dir, or a name on the hub."""
    max_length: Count
    """Longer texts are cut to so many tokens."""

    @model_validator(mode="after")
    def _from_somewhere(self) -> Self:
        if self.path is None and self.hub is None:
            known = "path, a folder below data_dir, or hub, a name on the Hugging Face hub"
            raise ValueError(f"set {known}")
        return self

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.text import load_text

        shared = {*DataSet.model_fields}
        return load_text(data_dir, **self.model_dump(exclude=shared))

    def fingerprint(self, data_dir: Path) -> Any:
        found = [_tokenizer_fingerprint(self.tokenizer, data_dir)]
        if self.path:
            found.append(content_fingerprint(data_dir / self.path, ("train.*", "validation.*")))
        return found


class HuggingFace(DataSet):
    """Images or texts of Hugging Face `datasets`: a folder that `save_to_disk` wrote or that
    `load_dataset` reads, or a name on the hub. No code that comes with them is run."""

    source: Literal["huggingface"]
    name: Text
    """A folder below data_dir, or a name on the hub, asked where there is no such folder."""
    subset: Text | None = None
    """The part of the data set, where it has several."""
    splits: dict[Literal["train", "validation"], Text] | None = None
    """Names of the two sets, `{train: ..., validation: ...}`."""
    label: Text = "label"
    """The column of labels: numbers or names of classes."""
    class_names: Names | None = Field(None, json_schema_extra={"x-default": "those of the label"})
    """Names of the classes, in the order of their numbers."""
    image: Text | None = None
    """The column of images, where it is a set of images."""
    channels: Literal[1, 3] = 3
    """1 makes images grey, 3 makes them coloured."""
    image_size: Count | None = None
    """Resizes images to so many pixels square; without it all must have one size."""
    columns: Annotated[list[Text], Field(min_length=1, max_length=2), UNIQUE] | None = None
    """The column of texts, or the two that form a pair, where it is a set of texts."""
    tokenizer: Text | None = None
    """Of texts, the network's own: a folder below data_dir, or a name on the hub."""
    max_length: Count | None = None
    """Longer texts are cut to so many tokens."""

    @model_validator(mode="after")
    def _images_or_texts(self) -> Self:
        texts = (self.columns, self.tokenizer, self.max_length)
        if (self.image is None) == (None in texts) or (self.image and any(texts)):
            raise ValueError("set image, a column, or all of columns, tokenizer and max_length")
        return self

    @property
    def inputs(self) -> str:  # type: ignore[override]
        return IMAGES if self.image else TEXTS

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.huggingface import load_huggingface

        shared = {*DataSet.model_fields}
        return load_huggingface(data_dir, **self.model_dump(exclude=shared))

    def fingerprint(self, data_dir: Path) -> Any:
        found = [folder_fingerprint(local_or_hub(self.name, data_dir))]
        if self.tokenizer:
            found.append(_tokenizer_fingerprint(self.tokenizer, data_dir))
        return found


class Npz(DataSet):
    """Arrays in one file of numpy: inputs and labels of both sets. Bytes [N, C, H, W] are images,
    which are normalised; other numbers [N, ...] reach the network as they are."""

    inputs: ClassVar[str] = ""
    source: Literal["npz"]
    path: Text
    """The file, relative to data_dir."""
    names: Annotated[list[Text], Field(min_length=4, max_length=4), UNIQUE] = Field(
        ["x_train", "y_train", "x_test", "y_test"]
    )
    """Names of the training inputs and labels, and of the validation inputs and labels."""
    class_names: Names | None = Field(None, json_schema_extra={"x-default": "the labels"})
    """Names of the classes, in the order of their numbers."""

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.own import load_npz

        return load_npz(data_dir / self.path, self.names, self.class_names)

    def fingerprint(self, data_dir: Path) -> Any:
        file = data_dir / self.path
        return content_fingerprint(file.parent, (file.name,))


class OwnData(DataSet):
    """Your own function `load(**arguments)`, which gets `data_dir` too where it has an argument of
    that name. It returns training inputs and labels, validation inputs and labels, and names of
    classes if it likes: arrays or tensors. Bytes [N, C, H, W] are images, which are normalised;
    other numbers [N, ...] reach the network as they are; a mapping of integers [N, T] is tokens."""

    inputs: ClassVar[str] = ""
    source: Annotated[str, Field(pattern=r"^[^:]+:[A-Za-z_]\w*$")]
    """`file.py:function` or `package.module:function`."""
    arguments: dict[str, Any] = Field({})
    """Further arguments of the function."""

    def read(self, data_dir: Path) -> "Arrays":
        from stiffness.data.own import load_own

        return load_own(self.source, self.arguments, data_dir)


SOURCES: dict[str, type[DataSet]] = {
    "digits": Digits,
    "torchvision": Torchvision,
    "image_folder": ImageFolder,
    "text": Texts,
    "huggingface": HuggingFace,
    "npz": Npz,
    OWN: OwnData,
}
"""Every source by its name."""


def _name(given: Any) -> str | None:
    """The entry of ``SOURCES`` that the options of a data set ask for."""
    source = given.get("source") if isinstance(given, Mapping) else getattr(given, "source", None)
    return OWN if isinstance(source, str) and is_import_path(source) else source


if TYPE_CHECKING:
    AnyDataSet = DataSet
else:
    _TAGGED = tuple(Annotated[kind, Tag(name)] for name, kind in SOURCES.items())
    AnyDataSet = Annotated[Union[_TAGGED], Discriminator(_name)]  # noqa: UP007 (of a tuple)


def data_set(options: Mapping[str, Any]) -> DataSet:
    """The data set that checked options of config.yaml describe."""
    return SOURCES[str(_name(options))].model_validate(dict(options))


def load(source: str, options: Mapping[str, Any], data_dir: str | Path) -> "Arrays":
    """Load a data set as config.yaml describes it.

    Args:
        source: a key of ``SOURCES``, or an import path.
        options: the source's own, and for every source ``train_examples`` (with ``seed``, by
            default 0) and ``label_noise`` (share and seed). Examples are drawn first; labels are
            made wrong among those.
        data_dir: the folder of the raw data.

    Raises:
        StiffnessError: unknown source, wrong options, too few examples, or what the source raises.
    """
    given = {"source": source, **options}
    if _name(given) not in SOURCES:
        raise StiffnessError(f"datasets: unknown source {source!r}; known: {', '.join(SOURCES)}")
    try:
        found = data_set(given)
    except ValidationError as error:
        raise StiffnessError(f"datasets: {describe_errors(error, given)}") from None
    arrays = found.read(Path(data_dir))
    if found.train_examples is not None:
        arrays = arrays.with_few_examples(found.train_examples, found.seed or 0)
    noise = found.label_noise
    return arrays.with_wrong_labels(noise.share, noise.seed) if noise else arrays


def _tokenizer_fingerprint(tokenizer: str, data_dir: Path) -> str:
    folder = local_or_hub(tokenizer, data_dir)
    return content_fingerprint(folder, ("*.json", "*.txt", "*.model"))
