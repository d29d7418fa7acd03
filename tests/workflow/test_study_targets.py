"""Studies: figures across experiments, from the tables that are there."""

from PIL import Image
from project import Project, figures

from stiffness.files import read_table

STUDIES = {
    "of_noise": {"kind": "label_noise", "experiments": ["tiny"]},
    "of_lengths": {"kind": "critical_lengths", "experiments": ["tiny"]},
}


def test_studies_are_drawn_from_the_tables_of_their_experiments(built: Project) -> None:
    built.configure({"studies": STUDIES})
    before = built.results()
    outcome = built.build(*STUDIES)
    jobs = dict.fromkeys((*STUDIES, *figures(*STUDIES)), 1)
    assert outcome.jobs == jobs
    made = {f"results/studies/{name}.{end}" for name in STUDIES for end in ("pdf", "png", "csv")}
    assert set(built.results()) - set(before) == made
    for name in STUDIES:
        with Image.open(built.folder / f"results/studies/{name}.png") as picture:
            assert len(picture.convert("L").getcolors()) > 2
    header, *rows = (built.folder / "results/studies/of_noise.csv").read_text().splitlines()
    assert header.startswith("experiment,lr,share,status,seeds,metric,epoch,train_loss")
    history = read_table(built.folder / "results/tiny/tables/exact/history.parquet")
    last = history[history["lr"] == "1e-3"].iloc[-1]
    assert [row.split(",")[:6] for row in rows] == [
        ["tiny", "1e-3", "0", "ok", "1", metric] for metric in ("sign", "cosine")
    ]
    assert {float(row.split(",")[7]) for row in rows} == {last["train_loss"]}
    # A study builds what its experiments lack, and nothing of it is in a plain `snakemake`.
    plan = built.plan("random_labels")
    assert plan["training"] == 4
    assert built.plan() == {}
