"""The report of a calibration as a page for people: what to use here, and every figure behind that."""

from __future__ import annotations

import os

from sfpp.calibration.report.classes import add_classes
from sfpp.calibration.report.facts import add_frames, add_machine, add_notes
from sfpp.calibration.report.files import add_files
from sfpp.calibration.report.head import add_head
from sfpp.calibration.report.parts import add_histograms, add_kept, add_sensitivity
from sfpp.calibration.report.pictures import add_pictures
from sfpp.calibration.report.summary import summary_lines
from sfpp.calibration.results import CalibrationReport
from sfpp.runtime.contract import ModelContract
from sfpp.tooling.page import Page

__all__ = ["report_page", "summary_lines", "write_report"]


def write_report(report: CalibrationReport, path: str | os.PathLike[str]) -> None:
    """Write the report as one HTML file that needs nothing else; the same report gives the same bytes.

    Raises:
        SfppError: the folder does not exist, or the disk is full.
        MissingDependencyError: there are pictures, and OpenCV is not installed.
    """
    report_page(report).write(path)


def report_page(report: CalibrationReport) -> Page:
    """Return the page, the decision first and what it rests on after it."""
    contract = report.contract
    version = f" {contract.sfpp_version}" if contract.sfpp_version else ""
    page = Page(
        f"Calibration of {report.model.name}", subtitle=_subtitle(contract), footer=f"Made by sfpp-calibrate{version}."
    )
    add_head(page, report)
    add_files(page, report)
    add_classes(page, report)
    add_pictures(page, report)
    add_sensitivity(page, report)
    add_histograms(page, report)
    add_kept(page, report)
    add_notes(page, report)
    add_frames(page, report)
    add_machine(page, report)
    return page


def _subtitle(contract: ModelContract) -> str:
    """Return what kind of model it is, as people say it: sizes are width x height."""
    keypoints = len(contract.keypoints.names) if contract.keypoints else 0
    answers = f"{keypoints} keypoints" if contract.task == "pose" else f"{len(contract.classes)} classes"
    network = " ".join(part for part in (contract.family, contract.size, contract.variant) if part)
    size = f"{contract.input.width}\u00d7{contract.input.height}"
    return " \u00b7 ".join([network, f"{contract.task}, {answers}", size])
