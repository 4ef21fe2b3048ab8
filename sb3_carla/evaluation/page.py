"""An evaluation as a page that needs no other file: the scorecard, and every driven path over its town's map."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sb3_carla.diagnostics.html import COLOURS, escaped, html_page, html_table
from sb3_carla.evaluation.episodes import EpisodeRecord
from sb3_carla.evaluation.lane_edges import Polylines
from sb3_carla.evaluation.report import Evaluation
from sb3_carla.zoo.provenance import provenance

__all__ = ["page"]

MARGIN = 8.0
"""Around a map [m]."""


def page(evaluation: Evaluation, video: Path | None = None) -> str:
    """
    :param evaluation: to show
    :param video: a ``.webm`` of the worst episode, to embed in the page
    :return: HTML
    """
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(evaluation.records)}
    maps = "".join(
        f"<figure><figcaption>{escaped(town)}</figcaption>{_map(town, lines, evaluation, colours)}</figure>"
        for town, lines in evaluation.lane_edges.items()
    )
    switches = "".join(
        f'<label style="color:{colour}"><input type="checkbox" checked data-driver="d{i}"> {escaped(name)}</label>'
        for i, (name, colour) in enumerate(colours.items())
    )
    tables = [html_table(evaluation.rows())]
    for by in ("town", "weather"):
        rows = evaluation.grouped_rows(by)
        if len(rows) > 1:
            tables.append(f"<h2>By {by}</h2>{html_table(rows)}")
    made = provenance()
    body = _BODY.format(
        tables="".join(tables), switches=switches, maps=maps, video=_video(video),
        made=escaped(f"{made['date']}: {made['command']}"), episodes=html_table(_failures(evaluation)),
    )  # fmt: skip
    return html_page("Evaluation", body, _STYLE)


_STYLE = """\
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1rem; }
.lane { fill: none; stroke: #bbb; stroke-width: .35; }
.path { fill: none; stroke-width: .9; stroke-opacity: .8; }
label { margin-right: 1.5rem; font-weight: 600; }
video { max-width: 100%; border-radius: 6px; }
small { color: #888; }"""

_BODY = """{tables}
<p><small>Brackets: 95 % confidence interval over the episodes.</small></p>
<h2>Paths</h2>
<p>{switches} <small>dot: start; cross: a failure; the cursor on a path tells its episode</small></p>
<main>{maps}</main>
{video}<h2>Failures</h2>{episodes}
<p><small>{made}</small></p>
<script>
for (const box of document.querySelectorAll("input[data-driver]"))
  box.addEventListener("change", () => document.querySelectorAll("." + box.dataset.driver).forEach(
    (path) => {{ path.style.display = box.checked ? "" : "none"; }}));
</script>"""


def _map(town: str, lines: Polylines, evaluation: Evaluation, colours: dict[str, str]) -> str:
    """The town with the paths of all drivers; y points down, as in CARLA's left-handed frame seen from above."""
    everything = np.concatenate(lines)
    low, high = everything.min(axis=0) - MARGIN, everything.max(axis=0) + MARGIN
    width, height = high - low
    parts = [f'<polyline class="lane" points="{_points(line)}"/>' for line in lines]
    for i, (name, records) in enumerate(evaluation.records.items()):
        members = [record for record in records if record.town == town]
        parts += [_path(record, name, f"d{i}", colours[name]) for record in members]
    box = f"{low[0]:.1f} {low[1]:.1f} {width:.1f} {height:.1f}"
    return f'<svg viewBox="{box}" role="img">{"".join(parts)}</svg>'


def _path(record: EpisodeRecord, name: str, driver: str, colour: str) -> str:
    places = np.column_stack([record.trace.x, record.trace.y])
    (x, y), (end_x, end_y) = places[0], places[-1]
    about = f"{name}: scenario {record.scenario}, {record.weather}, {record.end_reason}"
    parts = [
        f"<title>{escaped(about)}, {record.route_completion:.0%}</title>",
        f'<polyline class="path" stroke="{colour}" points="{_points(places)}"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour}"/>',
    ]
    if not record.success:
        cross = f"M{end_x - 3:.1f} {end_y - 3:.1f}l6 6m0 -6l-6 6"
        parts.append(f'<path d="{cross}" stroke="{colour}" stroke-width="1.5"/>')
    return f'<g class="{driver}">{"".join(parts)}</g>'


def _points(line: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in line)


def _failures(evaluation: Evaluation) -> list[list[str]]:
    rows = [["driver", "town", "scenario", "weather", "end", "completion", "lateral mean [m]"]]
    for name, records in evaluation.records.items():
        for r in records:
            if not r.success:
                offset = r.trace.deviations.mean()
                end, number = r.end_reason, str(r.scenario)
                rows.append([name, r.town, number, r.weather, end, f"{r.route_completion:.0%}", f"{offset:.2f}"])
    return rows


def _video(video: Path | None) -> str:
    if video is None:
        return ""
    data = base64.b64encode(video.read_bytes()).decode()
    return f'<h2>Worst episode</h2><video controls src="data:video/webm;base64,{data}"></video>'
