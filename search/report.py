"""The report of a profile or a search: one HTML file that needs no network, and its figures."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..devices.files import write_atomically
from .report_input import ReportInput, Winner
from .report_pictures import report_parts
from .report_tables import headline, tiles, unsteady, verdict_counts
from .report_values import calibration_rows, error_table, rows

__all__ = ["ReportInput", "Winner", "write_report"]


def write_report(data: ReportInput, folder: Path) -> Path:
    """Write `report.html` and its figures as PNG files into `folder`; return the page's path.

    The page refers to nothing outside itself and runs no script. Parts without data are left out
    and named at its end. Raises `LatkitError` where a file can't be written.
    """
    parts, left_out = report_parts(data)
    if not data.winners:
        left_out.insert(0, "Result: no search was run, so there is no winner to show.")
    if data.verdicts.empty:
        left_out.append("Verdicts: no measurement was handed to this report.")
    if not data.calibration:
        left_out.append("Calibration: no calibration was fitted.")
    page = _template().render(
        title=data.title,
        notes=list(data.notes),
        tiles=tiles(data),
        winners=list(data.winners),
        headline=headline(data.winners),
        verdict_counts=verdict_counts(data.verdicts),
        verdict_total=len(data.verdicts),
        unsteady=unsteady(data.verdicts),
        context=rows(data.context),
        calibration=calibration_rows(data.calibration),
        errors=error_table(data.calibration),
        parts=parts,
        left_out=left_out,
    )
    for picture in (picture for part in parts for picture in part.pictures):
        write_atomically(folder / picture.file, picture.content)
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _template() -> Any:
    text = resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
