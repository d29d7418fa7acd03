"""Class stiffness matrices as a page: a cell says its classes, value, interval and pairs.

The page needs no other file and no network. It shows the matrices of the picture of the same name.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd

from stiffness.figures import matrix, style
from stiffness.files import rows
from stiffness.training.stages import Stage, reference_stages

_SCALE = 10_000  # of numbers in 16 bits; stiffness lies between -1 and 1
_UNDEFINED = -32_768


def page(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    classes: pd.DataFrame,
    learning_rate: str,
    stages: Sequence[Any],
    options: Mapping[str, Any],
) -> str:
    """Return the page of the reference run as HTML.

    Args:
        runs, history: an experiment's tables.
        classes: class stiffness of the reference learning rate, with a column seed.
        learning_rate, stages: the ones that are shown.
        options: colormap (diverging), and metrics and pair_modes, or metric and pair_mode.
    """
    seed, status = style.reference_run(runs, learning_rate)
    title = style.heading(runs, learning_rate=learning_rate, seed=seed).replace("\n", " ")
    if status != style.OK:
        return _fill(f"{title}: this run is not a finding: {status}", {"panels": []})
    classes = rows(classes, seed=seed)
    names = [str(name) for name in classes["class_a"].drop_duplicates()]
    metrics = options.get("metrics") or [options["metric"]]
    modes = options.get("pair_modes") or [options["pair_mode"]]
    panels = []
    for metric in metrics:
        of_metric = [
            _panel(classes, stage, metric, mode, names)
            for stage in reference_stages(runs, history, learning_rate, stages)
            for mode in modes
        ]
        limit = matrix.color_limit([values for _, values in of_metric])
        panels += [panel | {"limit": limit} for panel, _ in of_metric]
    shades = mpl.colormaps[options["colormap"]](np.linspace(0, 1, 101), bytes=True)[:, :3]
    data = {"names": names, "shades": shades.tolist(), "panels": panels, "scale": _SCALE}
    return _fill(title, data | {"undefined": _UNDEFINED})


def _panel(
    classes: pd.DataFrame, stage: Stage, metric: str, mode: str, names: Sequence[str]
) -> tuple[dict[str, Any], matrix.Floats]:
    """Return what the page knows of one matrix, and its values [C, C]."""
    cells = rows(classes, step=stage.step, metric=metric, pair_mode=mode)
    wide = cells.pivot(
        index="class_a", columns="class_b", values=["value", "low", "high", "n_pairs"]
    )
    value, low, high, pairs = (
        wide[column].loc[list(names), list(names)].to_numpy(np.float64)
        for column in ("value", "low", "high", "n_pairs")
    )
    scaled = np.nan_to_num(np.stack([value, low, high]) * _SCALE, nan=_UNDEFINED).round()
    row, column = matrix.axis_names(mode)
    panel = {
        "stage": style.stage_name(stage).replace("\n", " "),
        "metric": style.METRIC_NAMES[metric],
        "mode": f"{style.MODE_NAMES[mode]} pairs",
        "row": row,
        "column": column,
        "cells": _encode(scaled.astype("<i2")),
        "pairs": _encode(np.nan_to_num(pairs).astype("<u4")),
    }
    return panel, value


def _encode(numbers: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()


def _fill(title: str, data: Mapping[str, Any]) -> str:
    # In a script "</" would end it.
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return _PAGE.replace("{title}", html.escape(title)).replace("{data}", text)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Class stiffness: {title}</title>
<style>
body { font: 14px sans-serif; margin: 1em; color: #222; }
h1 { font-size: 16px; }
#shown { position: relative; display: inline-block; }
canvas { image-rendering: pixelated; cursor: crosshair; display: block; }
#about { min-height: 3.6em; margin: .6em 0; line-height: 1.2em; }
label { margin-right: 1em; }
#scale { display: flex; align-items: center; gap: .5em; margin: .6em 0; }
#bar { width: 200px; height: 12px; }
</style>
</head>
<body>
<h1>Class stiffness: {title}</h1>
<p id="controls"></p>
<p id="about">Point at a cell.</p>
<div id="shown"><canvas id="matrix"></canvas></div>
<div id="scale"><span id="least"></span><canvas id="bar" width="101" height="1"></canvas>
<span id="most"></span><span>grey: undefined</span></div>
<p>Rows: <span id="row"></span>. Columns: <span id="column"></span>. Intervals are 95 %, over
examples.</p>
<script id="data" type="application/json">{data}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0)).buffer;
const chosen = {};
let panel = null, cells = null, pairs = null;

function select(key) {
  const values = [...new Set(data.panels.map(one => one[key]))];
  const label = document.createElement("label"), menu = document.createElement("select");
  for (const value of values) menu.add(new Option(value, value));
  menu.id = key;
  chosen[key] = values[key === "stage" ? values.length - 1 : 0];
  menu.value = chosen[key];
  menu.onchange = () => { chosen[key] = menu.value; draw(); };
  label.append({stage: "stage ", metric: "metric ", mode: "pairs "}[key], menu);
  find("controls").append(label);
}

function shade(value, limit) {
  const place = Math.round(50 + 50 * Math.max(-1, Math.min(1, value / limit)));
  return data.shades[place];
}

function draw() {
  panel = data.panels.find(one => Object.keys(chosen).every(key => one[key] === chosen[key]));
  cells = new Int16Array(bytes(panel.cells));
  pairs = new Uint32Array(bytes(panel.pairs));
  const number = data.names.length, canvas = find("matrix");
  canvas.width = canvas.height = number;
  const side = number * Math.max(5, Math.floor(600 / number));
  canvas.style.width = canvas.style.height = side + "px";
  const context = canvas.getContext("2d"), image = context.createImageData(number, number);
  for (let cell = 0; cell < number * number; cell++) {
    const undefined_ = cells[cell] === data.undefined;
    const rgb = undefined_ ? [191, 191, 191] : shade(cells[cell] / data.scale, panel.limit);
    image.data.set([...rgb, 255], 4 * cell);
  }
  context.putImageData(image, 0, 0);
  find("least").textContent = -panel.limit;
  find("most").textContent = panel.limit;
  find("row").textContent = panel.row;
  find("column").textContent = panel.column;
}

function say(event) {
  const canvas = find("matrix"), box = canvas.getBoundingClientRect(), number = data.names.length;
  const place = at => Math.min(number - 1, Math.max(0, Math.floor(at * number)));
  const row = place((event.clientY - box.top) / box.height);
  const column = place((event.clientX - box.left) / box.width);
  const cell = row * number + column, all = number * number;
  const number_ = at => cells[at] === data.undefined ? "?" : (cells[at] / data.scale).toFixed(3);
  const value = cells[cell] === data.undefined ? "undefined"
    : number_(cell) + " (" + number_(all + cell) + " to " + number_(2 * all + cell) + ")";
  const about = find("about");
  about.replaceChildren();
  const names = document.createElement("b");
  names.textContent = data.names[row] + " × " + data.names[column];
  about.append(names, document.createElement("br"), panel.metric + ": " + value,
    document.createElement("br"), pairs[cell].toLocaleString("en") + " pairs");
}

if (data.panels.length) {
  ["stage", "metric", "mode"].forEach(select);
  const bar = find("bar").getContext("2d"), image = bar.createImageData(101, 1);
  data.shades.forEach((rgb, place) => image.data.set([...rgb, 255], 4 * place));
  bar.putImageData(image, 0, 0);
  draw();
  find("matrix").addEventListener("mousemove", say);
} else {
  find("about").textContent = "Nothing is drawn.";
}
</script>
</body>
</html>
"""
