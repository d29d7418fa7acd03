"""What the runs of docs/data took, room by room, and what follows for other machines."""

from stiffness.pages.committed import Committed
from stiffness.pages.numbers import number, table

_MEASURES = ("gradients", "measures")
_NODES = 100


def costs(committed: Committed) -> str:
    """Hours of a core, memory, and seconds per epoch and per checkpoint of every experiment.

    Below the table stands how long its jobs take on a cluster. The jobs of a run, training,
    gradients and tables, wait for one another, and the runs do not, so that a cluster needs as long
    as the longest run, and at least its share of all hours.
    """
    lines, unrecorded, total, longest, of_longest = [], [], 0.0, 0.0, ""
    for name in committed.experiments:
        rooms = committed.provenance(name).get("rooms", {})
        if not rooms:
            unrecorded.append(f"`{name}`")
            continue
        runs, history = (committed.table(name, one) for one in ("runs", "history"))
        hours = {room: one["cpu_seconds"] / 3600 for room, one in rooms.items()}
        epochs = float(runs["epochs"].sum())
        checkpoints = len(history)
        arithmetics = len(committed.settings["experiments"][name]["arithmetic"])
        of_run = sum(hours.values()) / len(runs)
        total += sum(hours.values())
        if of_run > longest:
            longest, of_longest = of_run, name
        lines.append(
            [
                f"`{name}`",
                str(len(runs)),
                f"{checkpoints:,}",
                _hours(hours, "training"),
                _each(hours, "training", epochs),
                *(_hours(hours, room) for room in _MEASURES),
                _each(hours, "gradients", checkpoints * arithmetics),
                number(max(one["peak_mib"] for one in rooms.values()) / 1024, 2),
            ]
        )
    header = ["experiment", "runs", "checkpoints", "training, h", "s an epoch", "gradients, h"]
    header += ["tables, h", "gradients, s each", "GiB"]
    share = total / _NODES
    missing = f"No records: {', '.join(unrecorded)}.\n\n" if unrecorded else ""
    if not lines:
        return missing.strip()
    return (
        f"{table(header, lines)}\n\n{missing}"
        f"Together {total:.1f} hours of one core. The runs of an experiment do not wait for each "
        f"other. Those of `{of_longest}` take longest, {60 * longest:.0f} minutes on average. So "
        f"{_NODES} nodes that give a core each would need {60 * max(longest, share):.0f} minutes "
        f"and the scheduler's waiting, instead of {total:.1f} hours."
    )


def _hours(hours: dict[str, float], room: str) -> str:
    return number(hours.get(room, 0.0), 2)


def _each(hours: dict[str, float], room: str, count: float) -> str:
    """Seconds of a core per epoch or checkpoint."""
    seconds = 3600 * hours.get(room, 0.0) / max(count, 1)
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
