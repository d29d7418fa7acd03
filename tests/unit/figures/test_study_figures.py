"""Figures across experiments: what is drawn where, and the numbers beside them."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from stiffness.figures import critical_lengths, label_noise, style
from stiffness.measures.pairs import METRICS
from stiffness.plan.config import Figures

OPTIONS = Figures().model_dump()
EPOCHS = [0.0, 0.02, 1.0, 2.0]
QUANTITIES = {"within": 0.9, "between": 0.1}
PARTS = {"within_clean": 0.8, "between_clean": 0.2, "within_mislabelled": 0.5}
PARTS |= {"between_mislabelled": 0.4}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch):
    """Figures that were to be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: figures.append(figure))
    yield figures
    plt.close("all")


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(plt.Text))


def lines(axis: plt.Axes) -> list[list[float]]:
    """The heights of every drawn line, without those across the panel."""
    drawn = [np.asarray(line.get_ydata(), float).tolist() for line in axis.lines]
    return [heights for heights in drawn if len(heights) == len(EPOCHS)]


# --- wrong labels --------------------------------------------------------------------------------

COLUMNS = [
    {"experiment": "clean_net", "lr": "1e-3", "share": 0},
    {"experiment": "noisy_net", "lr": "1e-3", "share": 0.25},
]


def noise_tables(**statuses: str) -> dict[str, pd.DataFrame]:
    made: dict[str, list[dict]] = {name: [] for name in ("runs", "history", "summary")}
    for column in COLUMNS:
        name = column["experiment"]
        key = {"experiment": name, "lr": "1e-3", "seed": 0, "status": statuses.get(name, "ok")}
        made["runs"].append(key | {"epochs": EPOCHS[-1], "onset_epoch": 1.0})
        parts = QUANTITIES | (PARTS if column["share"] else {})
        for step, epoch in enumerate(EPOCHS):
            at = key | {"step": step, "epoch": epoch}
            scores = {"train_loss": 2.0 - 0.5 * step, "validation_loss": 2.1 - 0.1 * step}
            scores |= {"train_accuracy": 0.3 * step, "validation_accuracy": 0.2 * step}
            made["history"].append(at | scores)
            for quantity, level in parts.items():
                for place, metric in enumerate(METRICS):
                    for mode, shift in (("train-val", 0.0), ("train-train", 5.0)):
                        value = level - 0.05 * place - 0.01 * step + shift
                        row = {"quantity": quantity, "metric": metric, "pair_mode": mode}
                        made["summary"].append(
                            at | row | {"value": value, "low": value - 0.1, "high": value + 0.1}
                        )
    # Of another learning rate: not shown.
    other = [row | {"lr": "3e-3", "value": 9.0} for row in made["summary"][:4]]
    made["summary"] += other
    return {name: pd.DataFrame(rows) for name, rows in made.items()}


def gaps(low: float = 0.2) -> pd.DataFrame:
    rows = [
        {"experiment": column["experiment"], "seed": 0, "epoch": epoch, "metric": metric}
        | {"value": 0.6 + 0.1 * epoch, "low": low, "high": 0.9}
        for column in COLUMNS
        for epoch in EPOCHS
        for metric in METRICS
    ]
    return pd.DataFrame(rows)


def panels_of(figure: Figure) -> np.ndarray:
    return np.array(figure.axes).reshape(6, len(COLUMNS))


def test_a_column_a_share_and_a_row_a_question(kept):
    label_noise.draw(COLUMNS, **noise_tables(), options=OPTIONS["label_noise"], outputs=[])
    panels = panels_of(kept[0])
    assert panels[0, 0].get_title() == "0 % wrong labels\nclean_net\n1 seed, 2 epochs"
    assert panels[0, 1].get_title() == "25 % wrong labels\nnoisy_net\n1 seed, 2 epochs"
    for column in panels.T:
        np.testing.assert_allclose(lines(column[0]), [[2.0, 1.5, 1.0, 0.5], [2.1, 2.0, 1.9, 1.8]])
        np.testing.assert_allclose(lines(column[1]), [[0, 0.3, 0.6, 0.9], [0, 0.2, 0.4, 0.6]])
        for place in range(len(METRICS)):
            first = [heights[0] for heights in lines(column[2 + place])]
            assert first == pytest.approx([level - 0.05 * place for level in QUANTITIES.values()])
    for place in range(len(METRICS)):
        assert not lines(panels[4 + place, 0])
        assert "all clean" in [text.get_text() for text in panels[4 + place, 0].texts]
        first = {round(heights[0] + 0.05 * place, 6) for heights in lines(panels[4 + place, 1])}
        assert first == set(PARTS.values())
    assert not [line for line in panels[1, 0].lines if line.get_ls() == ":"]
    (share,) = [line for line in panels[1, 1].lines if line.get_ls() == ":"]
    assert set(share.get_ydata()) == {0.75}
    assert all(axis.get_ylabel() for axis in panels[:, 0])
    assert all(axis.get_xlabel().startswith("epoch") for axis in panels[-1])


def test_dead_experiments_are_said_to_be_dead(kept):
    tables = noise_tables(noisy_net="at chance")
    label_noise.draw(COLUMNS, **tables, options=OPTIONS["label_noise"], outputs=[])
    panels = panels_of(kept[0])
    assert "at chance" in texts(kept[0])
    assert not any(lines(axis) for axis in panels[:, 1])
    assert all(lines(axis) for axis in panels[:4, 0])
    table = label_noise.numbers(COLUMNS, **tables, gaps=gaps(), options=OPTIONS["label_noise"])
    dead = table[table["experiment"] == "noisy_net"]
    assert dead["status"].tolist() == ["at chance"] * 2
    assert dead[["within", "train_loss", "widest_gap"]].isna().all(axis=None)


def test_the_table_has_the_end_of_the_curves_and_when_they_parted():
    tables = noise_tables()
    table = label_noise.numbers(COLUMNS, **tables, gaps=gaps(), options=OPTIONS["label_noise"])
    assert table[["experiment", "metric"]].to_numpy().tolist() == [
        [column["experiment"], metric] for column in COLUMNS for metric in METRICS
    ]
    for row in table.to_dict("records"):
        place = METRICS.index(row["metric"])
        assert (row["epoch"], row["train_loss"]) == (2, 0.5)
        assert row["validation_accuracy"] == pytest.approx(0.6)
        for quantity, level in (QUANTITIES | PARTS).items():
            expected = level - 0.05 * place - 0.03
            if quantity in PARTS and not row["share"]:
                assert np.isnan(row[quantity])
            else:
                ends = [row[quantity], row[f"{quantity}_low"], row[f"{quantity}_high"]]
                assert ends == pytest.approx([expected, expected - 0.1, expected + 0.1])
        assert [row["gap"], row["gap_low"], row["gap_high"]] == pytest.approx([0.8, 0.2, 0.9])
        assert (row["apart"], row["since_epoch"], row["widest_epoch"]) == (True, 0, 2)


# --- critical lengths ----------------------------------------------------------------------------

EXPERIMENTS = [
    {
        "experiment": name,
        "learning_rates": ["3e-3", "1e-3"],
        "optimizer": {"name": optimizer, "momentum": momentum},
        "batch_size": batch,
    }
    for name, optimizer, momentum, batch in (("a", "adam", 0, 32), ("b", "sgd", 0.9, 128))
]


def length_tables(**statuses: str) -> dict[str, pd.DataFrame]:
    made: dict[str, list[dict]] = {
        name: [] for name in ("runs", "history", "summary", "critical_length")
    }
    for number, one in enumerate(EXPERIMENTS):
        for place, lr in enumerate(one["learning_rates"]):
            name = one["experiment"]
            key = {"experiment": name, "lr": lr, "seed": 0}
            key["status"] = statuses.get(name, "ok")
            made["runs"].append(key | {"epochs": EPOCHS[-1], "onset_epoch": 1.0})
            for step, epoch in enumerate(EPOCHS):
                at = key | {"step": step, "epoch": epoch}
                made["history"].append(at | {"train_loss": 2.0 * 0.4**step})
                row = at | {"pair_mode": "train-val", "metric": "cosine"}
                value = 1.0 + number + 0.1 * place - 0.1 * step
                ends = {"value": value, "low": value - 0.1, "high": value + 0.1}
                made["summary"].append(row | ends | {"quantity": "within"})
                made["summary"].append(row | ends | {"quantity": "between", "value": 7.0})
                line = {"crossing": "measured", "estimator": "line", "max_distance": 1.4}
                made["critical_length"].append(row | ends | line)
                past = {"value": np.nan, "low": 1.4, "high": np.inf, "crossing": "beyond the data"}
                monotone = line | {"estimator": "monotone"} | (past if step < 3 else {})
                made["critical_length"].append(row | ends | monotone)
    return {name: pd.DataFrame(rows) for name, rows in made.items()}


def draw_lengths(tables: dict[str, pd.DataFrame], outputs: list[Path] | None = None) -> None:
    critical_lengths.draw(
        EXPERIMENTS,
        **tables,
        space="input",
        options=OPTIONS["critical_lengths"],
        outputs=outputs or [],
    )


def heights(axis: plt.Axes, marker: str) -> set[float]:
    drawn = [line.get_ydata() for line in axis.lines if line.get_marker() == marker]
    return {round(float(y), 6) for part in drawn for y in part}


def lengths_panels(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Where the legends of the columns stand, and the panels [3, 2] below them."""
    grid = np.array(figure.subfigs[0].axes).reshape(4, 2)
    return grid[0], grid[1:]


def test_each_experiment_has_its_column_with_the_first_behind_it(kept):
    draw_lengths(length_tables())
    heads, above = lengths_panels(kept[0])
    assert heads[0].get_title().startswith("Adam, batch 32\n")
    assert heads[1].get_title().startswith("SGD, momentum 0.9, batch 128\n")
    assert all(head.get_title().endswith("1 seed, 2 epochs") for head in heads)
    own = {round(1 + 0.1 * place - 0.1 * step, 6) for place in range(2) for step in range(4)}
    others = {round(height + 1, 6) for height in own}
    assert heights(above[0, 0], "o") == own
    assert heights(above[0, 1], "o") == own | others
    assert heights(above[2, 0], "o") == own
    assert heights(above[2, 1], "o") == others
    # The falling curve: an arrow at the farthest pair, no value.
    late = {round(1 + 0.1 * place - 0.3, 6) for place in range(2)}
    assert heights(above[1, 0], "o") == late
    assert heights(above[1, 0], "^") == {1.4}
    for row in above:
        assert not [line for line in row[0].lines if to_hex(line.get_color()) == "#bfbfbf"]
        assert [line for line in row[1].lines if to_hex(line.get_color()) == "#bfbfbf"]


def test_values_at_equal_loss_are_those_of_the_table(kept):
    tables = length_tables()
    draw_lengths(tables)
    del tables["runs"]
    table = critical_lengths.numbers(**tables, options=OPTIONS["critical_lengths"])
    assert set(table["quantity"]) == {"xi/line", "xi/monotone", "within"}
    losses = sorted(table["train_loss"].unique(), reverse=True)
    assert losses == pytest.approx([0.292, 0.195, 0.13])
    below = kept[0].subfigs[1].axes
    for axis, loss in zip(below, losses, strict=True):
        assert axis.get_title() == f"at training loss {loss:g}"
        rows = table[(table["train_loss"] == loss) & (table["quantity"] == "xi/line")]
        assert len(rows) == 4
        assert heights(axis, "o") == {round(value, 6) for value in rows["value"]}
    monotone = table[table["quantity"] == "xi/monotone"]
    assert set(monotone["crossing"]) == {"beyond the data"}
    assert monotone["value"].isna().all()
    assert (monotone["high"] == np.inf).all()


def test_dead_runs_are_named_and_not_drawn(kept):
    draw_lengths(length_tables(b="diverged"))
    _, above = lengths_panels(kept[0])
    assert "3e-3 (seed 0): diverged" in kept[0].get_suptitle()
    assert not heights(above[0, 1], "o") - heights(above[0, 0], "o")


def test_nothing_alive_is_a_picture_of_nothing(tmp_path):
    draw_lengths(length_tables(a="diverged", b="at chance"), [tmp_path / "a.png"])
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("kind", ["label_noise", "critical_lengths"])
def test_both_files_have_the_size_asked_for(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(plt.rcParams, "savefig.dpi", 40)
    outputs = [tmp_path / "a.pdf", tmp_path / "a.png"]
    if kind == "label_noise":
        label_noise.draw(COLUMNS, **noise_tables(), options=OPTIONS[kind], outputs=outputs)
    else:
        draw_lengths(length_tables(), outputs)
    assert set(tmp_path.iterdir()) == set(outputs)
    with Image.open(outputs[1]) as picture:
        expected = OPTIONS[kind]["width"] * 40, OPTIONS[kind]["height"] * 40
        assert picture.size == pytest.approx(expected, abs=2)
