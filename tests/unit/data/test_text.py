"""Texts to tokens: every kind of file, every kind of label, and what is wrong with a table."""

import json

import pandas as pd
import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import draw_evaluation
from stiffness.data.hub import load_pretrained
from stiffness.data.sources import load
from stiffness.data.text import load_text
from stiffness.errors import StiffnessError

CLASSES = ["entailment", "neutral", "contradiction"]
PAIR = {"columns": ["premise", "hypothesis"], "label": "label", "class_names": CLASSES}
SINGLE = {"columns": ["text"], "label": "kind", "class_names": ["good", "bad"]}
ROWS = [{"text": "a cat likes the dog", "kind": "good"}, {"text": "the eel", "kind": "bad"}]


@pytest.fixture
def read(tiny_language, tmp_path):
    """Read tmp_path/mine with the tiny tokenizer."""
    (tmp_path / "mine").mkdir()
    tokenizer = str(tiny_language / "bert")

    def run(**options) -> Arrays:
        given = {"tokenizer": tokenizer, "max_length": 32, "path": "mine", **SINGLE, **options}
        return load("text", given, tmp_path)

    return run


@pytest.fixture
def write(tmp_path):
    """Both sets of tmp_path/mine, as json lines."""

    def run(train, validation=None) -> None:
        for split, rows in (("train", train), ("validation", validation or ROWS)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / "mine" / f"{split}.jsonl").write_text(lines)

    return run


@pytest.fixture
def words(tiny_language):
    """A row of tokens as text."""
    encoder = load_pretrained("AutoTokenizer", "tokenizer", "bert", tiny_language)
    return lambda tokens: encoder.decode(tokens, skip_special_tokens=False)


def complaint(read, **options) -> str:
    with pytest.raises(StiffnessError) as raised:
        read(**options)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


# --- tokens --------------------------------------------------------------------------------------


def test_pairs(tiny_language, words, make_rows):
    arrays = load_text(tiny_language, tokenizer="bert", max_length=32, path="nli", **PAIR)
    assert arrays.class_names == CLASSES
    assert arrays.shape == ()
    assert arrays.normalization is None
    for inputs, targets, rows in (
        (arrays.train_inputs, arrays.train_targets, make_rows(60, 1)),
        (arrays.validation_inputs, arrays.validation_targets, make_rows(30, 2)),
    ):
        assert list(inputs) == ["input_ids", "token_type_ids", "attention_mask"]
        assert {value.dtype for value in inputs.values()} == {torch.int32}
        assert targets.tolist() == [row["label"] for row in rows]
        for number, row in enumerate(rows):
            ids, types, mask = (value[number] for value in inputs.values())
            first, second = len(row["premise"].split()) + 2, len(row["hypothesis"].split()) + 1
            text = f"[CLS] {row['premise']} [SEP] {row['hypothesis']} [SEP]"
            assert words(ids[: first + second]) == text
            assert mask.tolist() == [1] * (first + second) + [0] * (len(ids) - first - second)
            assert types.tolist() == [0] * first + [1] * second + [0] * (len(ids) - first - second)
            assert ids[first + second :].eq(0).all()


def test_padding_ends_at_the_longest_of_both_sets(read, write):
    write([{"text": "a cat", "kind": "good"}, {"text": "a", "kind": "bad"}])
    arrays = read()
    longest = len(["[CLS]", "a", "cat", "likes", "the", "dog", "[SEP]"])
    for inputs in (arrays.train_inputs, arrays.validation_inputs):
        assert {value.shape for value in inputs.values()} == {(2, longest)}
    assert arrays.train_inputs["attention_mask"].sum(1).tolist() == [4, 3]
    assert arrays.validation_inputs["attention_mask"].sum(1).tolist() == [longest, 4]


def test_longer_texts_are_cut(read, write, words):
    write(ROWS)
    arrays = read(max_length=4)
    assert words(arrays.train_inputs["input_ids"][0]) == "[CLS] a cat [SEP]"
    assert arrays.train_inputs["attention_mask"].shape == (2, 4)


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_without_room_for_a_text(read, write, max_length):
    write(ROWS)
    message = complaint(read, max_length=max_length)
    assert message == f"max_length: {max_length} tokens leave no room for a text"


def test_many_texts_are_tokenised_in_parts(read, write, monkeypatch):
    rows = [{"text": "a cat " * (1 + row % 5), "kind": "good"} for row in range(17)]
    write(rows)
    whole = read()
    monkeypatch.setattr("stiffness.data.text._CHUNK", 4)
    for name, value in read().train_inputs.items():
        assert torch.equal(value, whole.train_inputs[name])


def test_again_gives_the_same_bytes(tiny_language, tmp_path):
    for name in ("first", "second"):
        arrays = load_text(tiny_language, tokenizer="bert", max_length=32, path="nli", **PAIR)
        arrays.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_file_and_the_subset_drawn_from_it(tiny_language, tmp_path):
    arrays = load_text(tiny_language, tokenizer="bert", max_length=32, path="nli", **PAIR)
    arrays.save(tmp_path / "arrays")
    loaded = Arrays.load(tmp_path / "arrays")
    assert (loaded.class_names, loaded.normalization) == (CLASSES, None)
    subset = draw_evaluation(loaded, 9, 6, seed=0)
    assert subset.shape == ()
    assert subset.targets.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 2 + [1] * 2 + [2] * 2
    longest = int(subset.inputs["attention_mask"].sum(1).max())
    for name, value in subset.inputs.items():
        assert value.shape == (15, longest)
        for row, (index, whole) in enumerate(
            zip(
                subset.indices,
                [arrays.train_inputs] * 9 + [arrays.validation_inputs] * 6,
                strict=True,
            )
        ):
            assert torch.equal(value[row], whole[name][index, :longest])
    subset.save(tmp_path / "subset")
    again = type(subset).load(tmp_path / "subset")
    assert all(torch.equal(again.inputs[name], value) for name, value in subset.inputs.items())
    with pytest.raises(StiffnessError, match="distance_layers: token inputs have no distance"):
        subset.distances()


def test_a_tokenizer_without_padding(read, write, tmp_path, make_tokenizer):
    write(ROWS)
    folder = make_tokenizer(tmp_path / "unpadded")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            settings = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(settings | {"pad_token": None}))
    assert complaint(read, tokenizer=str(folder)).startswith("tokenizer: it has no padding token")


def test_tokens_of_two_kinds_are_no_data_set():
    ones = torch.ones(2, 3, dtype=torch.int32)
    labels = torch.tensor([0, 1])
    tokens = {"input_ids": ones, "attention_mask": ones}
    for other in ({"input_ids": ones}, {name: value[:, :2] for name, value in tokens.items()}):
        with pytest.raises(StiffnessError, match="validation set: tokens of other names or widths"):
            Arrays.from_tokens(tokens, labels, other, labels, ["a", "b"])
    with pytest.raises(StiffnessError, match=r"training set: a label outside 0\.\.1"):
        Arrays.from_tokens(tokens, labels + 1, tokens, labels, ["a", "b"])


# --- files and labels ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same(read, write, tmp_path, words, suffix):
    rows = [
        {"text": "None", "kind": "bad"},
        {"text": 'the "old", cat', "kind": "good"},
        {"text": "007", "kind": None},
        {"text": "12", "kind": "good"},
    ]
    write(rows)
    expected = read()
    assert expected.train_targets.tolist() == [1, 0, 0]
    (tmp_path / "mine" / "train.jsonl").unlink()
    file = tmp_path / "mine" / f"train.{suffix}"
    table = pd.DataFrame(rows)
    if suffix == "csv":
        table.to_csv(file, index=False)
    elif suffix == "parquet":
        table.to_parquet(file)
    elif suffix == "json":
        file.write_text(json.dumps(rows))
    else:
        write(rows)
    found = read()
    assert torch.equal(found.train_targets, expected.train_targets)
    for name, value in expected.train_inputs.items():
        assert torch.equal(found.train_inputs[name], value)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["good", "bad", "good"], [0, 1, 0]),
        ([1, 0, 1], [1, 0, 1]),
        (["1", "0", "1"], [1, 0, 1]),
        ([1, -1, None, 0], [1, 0]),
        ([1, None, 0], [1, 0]),
        (["bad", "-", "", "-1", "good"], [1, 0]),
        ([False, True], [0, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_labels(read, write, tmp_path, labels, numbers, suffix):
    rows = [{"text": "a cat", "kind": label} for label in labels]
    if suffix == "csv":
        write(rows)
        (tmp_path / "mine" / "train.jsonl").unlink()
        pd.DataFrame(rows).to_csv(tmp_path / "mine" / "train.csv", index=False)
    else:
        write(rows)
    assert read().train_targets.tolist() == numbers


def test_a_class_may_have_the_name_of_no_label_or_of_a_number(read, write):
    write(
        [{"text": "a", "kind": name} for name in ("-", "1", "0")],
        [{"text": "a", "kind": "0"}],
    )
    arrays = read(class_names=["-", "0", "1"])
    assert arrays.train_targets.tolist() == [0, 2, 1]


@pytest.mark.parametrize("label", ["god", 2, 0.5, "2", -2, ["good"]], ids=repr)
def test_an_unknown_label(read, write, tmp_path, label):
    write([{"text": "a cat", "kind": "-"}, {"text": "a cat", "kind": label}])
    assert complaint(read) == (
        f"{tmp_path / 'mine' / 'train.jsonl'}: row 2: label {label!r} is not one of class_names "
        "(good, bad), nor the number of one"
    )


def test_no_labels_at_all(read, write):
    write(ROWS, [{"text": "a", "kind": -1}])
    assert complaint(read).endswith("validation.jsonl: no row has a label in column 'kind'")


@pytest.mark.parametrize("column", ["columns", "label"])
def test_a_missing_column(read, write, column):
    write(ROWS)
    message = complaint(read, **{column: ["texts"] if column == "columns" else "texts"})
    assert message.endswith("train.jsonl: no column 'texts'; there are: text, kind")


def test_a_row_without_a_text(read, write, tmp_path):
    expected = "row 3 has no text in column 'text'; fill it in, or leave the row out"
    write([ROWS[0], {"text": "a", "kind": -1}, {"text": None, "kind": "good"}])
    assert complaint(read).endswith(f"train.jsonl: {expected}")
    (tmp_path / "mine" / "train.jsonl").unlink()
    (tmp_path / "mine" / "train.csv").write_text("text,kind\na cat,good\na,-1\n,bad\n")
    assert complaint(read).endswith(f"train.csv: {expected}")


def test_a_row_without_label_or_text_is_left_out(read, write):
    write([*ROWS, {"text": None, "kind": -1}])
    assert read().train_targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.jsonl", '{"text": '), ("train.csv", 'text,kind\n"a'), ("train.parquet", "PAR1")],
)
def test_an_unreadable_file(read, write, tmp_path, name, content):
    write(ROWS)
    (tmp_path / "mine" / "train.jsonl").unlink()
    (tmp_path / "mine" / name).write_text(content)
    assert complaint(read).startswith(f"{tmp_path / 'mine' / name}: not readable as a table (")


def test_two_files_of_one_set(read, write, tmp_path):
    write(ROWS)
    (tmp_path / "mine" / "train.csv").write_text("text,kind\na,good\n")
    assert complaint(read) == f"{tmp_path / 'mine'}: has train.jsonl, train.csv; keep one there"


def test_no_file_of_a_set(read, write, tmp_path):
    write(ROWS)
    (tmp_path / "mine" / "validation.jsonl").unlink()
    assert complaint(read) == (
        f"{tmp_path / 'mine'}: has none of validation.jsonl, validation.json, validation.csv, "
        "validation.parquet; put one there"
    )


# --- the hub -------------------------------------------------------------------------------------


def test_neither_a_folder_nor_a_name_on_the_hub(read, tmp_path):
    message = complaint(read, path="elsewhere")
    assert message.startswith(f"{tmp_path / 'elsewhere'}: no such folder; put train.jsonl and ")
    assert message.endswith("with the key hub")
    assert complaint(read, path=None).startswith("datasets: config: set path, a folder below ")


@pytest.mark.parametrize("path", ["elsewhere", None])
def test_without_the_hub_the_name_and_the_folder_are_named(read, tmp_path, path):
    message = complaint(read, path=path, hub="nobody/nothing", splits={"train": "training"})
    assert message.startswith("hub: 'nobody/nothing', split 'training': the Hugging Face hub did")
    folder = f"put train.jsonl and validation.jsonl into {tmp_path / 'elsewhere'}"
    assert (folder if path else "set path") in message


def test_the_hub_is_asked_for_its_own_names_where_there_is_no_folder(read, monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        return datasets.Dataset.from_list(ROWS if split == "train" else ROWS[:1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    arrays = read(
        path="elsewhere", hub="some/texts", subset="small", splits={"validation": "dev_matched"}
    )
    assert asked == [("some/texts", "small", "train"), ("some/texts", "small", "dev_matched")]
    assert arrays.train_targets.tolist() == [0, 1]
    assert arrays.validation_targets.tolist() == [0]


def test_a_folder_comes_before_the_hub(read, write, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", None)
    write(ROWS)
    assert read(hub="some/texts").train_targets.tolist() == [0, 1]
