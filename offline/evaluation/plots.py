"""Draw an evaluation: the intervals of every contender, and its coverage of the catalogue."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline.evaluation.report import Report


def draw(report: Report, path: Path) -> None:
    """Draw *report* into the file *path*; its suffix selects the format (png, svg or pdf)."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_intervals(left, report)
    _draw_reach(right, report)
    figure.suptitle(f"{report.facts['dataset']}, {report.facts['holdout']} hold-out, {report.facts['users']} users")
    # The file contains no date, so equal reports give equal pictures.
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_intervals(axes: Axes, report: Report) -> None:
    places = np.arange(len(report.entries))
    for offset, name in ((0.12, "ndcg_10"), (-0.12, "recall_20")):
        intervals = [entry.figures[name].interval for entry in report.entries]
        means = np.array([each.mean for each in intervals])
        reach = np.array([[each.mean - each.low, each.high - each.mean] for each in intervals]).T
        label = {"ndcg_10": "NDCG@10", "recall_20": "Recall@20"}[name]
        axes.errorbar(means, places + offset, xerr=np.maximum(reach, 0), fmt="o", capsize=3, label=label)
    axes.set_yticks(places, [entry.name for entry in report.entries])
    axes.set_xlim(left=0)
    axes.set_xlabel("mean over users, 95 % bootstrap interval")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")


def _draw_reach(axes: Axes, report: Report) -> None:
    """Draw accuracy against coverage, because a model can gain accuracy with popular items alone."""
    for entry in report.entries:
        axes.plot(entry.quality.coverage, entry.figures["ndcg_10"].interval.mean, "o", label=entry.name)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the catalogue in the lists")
    axes.set_ylabel("NDCG@10")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
