"""The contact sheet: which images stand where, and what is said of them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import draw_evaluation
from stiffness.errors import StiffnessError
from stiffness.figures import contact_sheet, style
from stiffness.figures.style import number
from stiffness.measures.extremes import COLUMNS, Extremes
from stiffness.measures.pairs import Tile
from stiffness.plan.config import Figures

OPTIONS = Figures().model_dump()["contact_sheet"]
KEY = {"experiment": "some_net", "lr": "1e-3", "seed": 0}


@pytest.fixture(scope="module")
def made(few_digits: Arrays) -> dict[str, Any]:
    """20 + 20 digits with any cosines, all of class 3 taken for 5."""
    subset = draw_evaluation(few_digits, 40, 20, seed=0)
    unit = np.random.default_rng(0).normal(size=(60, 4))
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    predictions = subset.targets.numpy().copy()
    predictions[predictions == 3] = 5
    found, train, validation = Extremes(subset), slice(0, 40), slice(40, 60)
    found.add(Tile(train, validation, unit[train] @ unit[validation].T))
    table = pd.DataFrame(found.rows(predictions), columns=COLUMNS)
    at = table.assign(step=50, epoch=1.0, seed=0)
    # Must not be drawn: another step, another seed.
    others = [at.assign(step=0, value=9.0), at.assign(seed=1, value=9.0)]
    return {
        "extremes": pd.concat([at, *others], ignore_index=True),
        "images": subset.raw_images(few_digits),
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, made: dict[str, Any]) -> Any:
    kept: list[plt.Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def draw(status: str = "ok", **options: Any) -> plt.Figure:
        history = [
            KEY | {"step": step, "epoch": step / 50, "validation_accuracy": 0.5} for step in (0, 50)
        ]
        contact_sheet.draw(
            runs=pd.DataFrame([KEY | {"status": status, "epochs": 1.0}]),
            history=pd.DataFrame(history),
            **made,
            learning_rate="1e-3",
            stages=["last"],
            options=OPTIONS | options,
            outputs=[],
        )
        return kept[-1]

    yield draw
    plt.close("all")


def said(figure: plt.Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(plt.Text)]


def test_every_image_of_the_table_is_shown_once_in_its_row(drawn: Any, made: Any) -> None:
    (axis,) = drawn().axes
    table = made["extremes"].query("step == 50 and seed == 0")
    assert len(axis.images) == len(table) + (table["second"] >= 0).sum()
    for label, (_, rows) in enumerate(table.groupby("class_name")):
        tops = [
            image for image in axis.images if image.get_extent()[3] == label * contact_sheet._ROW
        ]
        numbers = [n for _, row in rows.iterrows() for n in (row["first"], row["second"]) if n >= 0]
        shown = sorted(image.get_array().sum() for image in tops)
        assert shown == sorted(int(made["images"][number].sum()) for number in numbers)
    assert {image.get_clim() for image in axis.images} == {(0, 16)}  # as bright as digits get


def test_each_value_stands_below_its_image(drawn: Any, made: Any) -> None:
    texts = said(drawn())
    table = made["extremes"].query("step == 50 and seed == 0")
    for value in table["value"]:
        assert any(text.split("\n")[0] == number(value, ".2f") for text in texts)
    assert "9.00" not in texts
    mean = table.loc[table["class_name"] == "3", "class_mean"].iloc[0]
    assert f"3\nmean {number(mean, '.2f')}" in texts
    assert any("some_net" in text and "epoch 1" in text for text in texts)


def test_an_example_taken_for_another_class_is_framed_and_says_which(drawn: Any, made: Any) -> None:
    figure = drawn()
    table = made["extremes"].query("step == 50 and seed == 0")
    wrong = (table["class_name"] == "3").sum() + (table["second_name"] == "3").sum()
    frames = figure.axes[0].patches
    assert len(frames) == wrong > 0
    assert {to_hex(frame.get_edgecolor()) for frame in frames} == {OPTIONS["color"]}
    assert sum("→ 5" in text for text in said(figure)) == wrong


def test_of_many_classes_those_with_the_least_stiffness(drawn: Any, made: Any) -> None:
    figure = drawn(classes=3)
    table = made["extremes"].query("step == 50 and seed == 0").drop_duplicates("class_name")
    least = table.nsmallest(3, "class_mean")["class_name"]
    named = {text.split("\n")[0] for text in said(figure) if "\nmean" in text}
    assert named == set(least)
    assert any("the 3 of 10 classes" in text for text in said(figure))
    assert not any("of 10 classes" in text for text in said(drawn()))


def test_images_in_colour_keep_it(drawn: Any, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    monkeypatch.setitem(made, "images", images)
    assert drawn().axes[0].images[0].get_array().shape == (8, 8, 3)


def test_a_dead_run_is_said_to_be_dead(drawn: Any) -> None:
    figure = drawn("collapsed")
    assert not figure.axes
    assert "collapsed" in figure.texts[0].get_text()


def test_originals_are_the_bytes_that_the_subset_was_drawn_from(few_digits: Arrays) -> None:
    subset = draw_evaluation(few_digits, 20, 10, seed=0)
    originals = subset.raw_images(few_digits)
    assert originals.dtype == torch.uint8
    assert torch.equal(few_digits.preprocess(originals), subset.inputs)
    texts = Arrays.from_tokens(*[{"ids": torch.ones(9, 2)}, torch.zeros(9).long()] * 2, ["a", "b"])
    with pytest.raises(StiffnessError, match="contact_sheet: shows images"):
        subset.raw_images(texts)
