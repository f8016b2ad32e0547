"""Pictures of what changed: numbers say how much, and these say where."""

from __future__ import annotations

from sfpp.calibration.report.words import SPACE, number, words
from sfpp.calibration.results import CalibrationReport, Picture
from sfpp.tooling.page import Html, Page, element, gallery, joined, paragraph, picture


def add_pictures(page: Page, report: CalibrationReport) -> None:
    """Add the pictures of frames with what changed."""
    if not report.pictures:
        return
    answers = words(report).answers
    section = page.section("Where answers change")
    section.add(
        paragraph(
            "Yellow pixels have another label than FP32 gives them. The frame is dimmed to grey and tinted with the "
            "colors of FP32's classes."
            if answers == "labels"
            else "A ring is where FP32 sees a keypoint that has moved, and a yellow disc is where this file sees it."
        )
    )
    section.add(gallery(_figure(each, answers) for each in report.pictures))


def _figure(shown: Picture, answers: str) -> Html:
    share = f"{number(shown.disagreement)}{SPACE}% of the {answers} differ"
    caption = joined([f"{shown.precision.upper()}: {share}", shown.name], separator=element("br"))
    return picture(shown.image_bgr, caption, alt=f"Frame {shown.name} with marks: {shown.precision.upper()}, {share}")
