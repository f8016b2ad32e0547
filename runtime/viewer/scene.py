"""What is shown, the same for every page: the task, the legend, and what a page may ask of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from sfpp.runtime.contract import MOST_CLASSES, Task
from sfpp.runtime.errors import UsageError
from sfpp.runtime.model import SelfTestState
from sfpp.runtime.overlay import Palette
from sfpp.runtime.skeleton import SIDE_COLORS_BGR
from sfpp.runtime.viewer.update import ControlAction

_SIDE_NAMES = {"left": "Left side", "right": "Right side", "middle": "Middle"}


@dataclass(frozen=True)
class Scene:
    """What every page shows.

    Attributes:
        task: ``segmentation`` has classes that can be switched off, ``pose`` skeletons.
        classes: the classes' names.
        palette: an (R, G, B) color, 0..255, for each class.
        title: a line about the model.
        controls: what a page may ask of the pipeline.
        self_test: the model's; None where nothing is known of it.

    Raises:
        UsageError: another number of colors than of classes, or too many of them.
    """

    task: Task = "segmentation"
    classes: tuple[str, ...] = ()
    palette: Palette = ()
    title: str = ""
    controls: tuple[ControlAction, ...] = ()
    self_test: SelfTestState | None = None

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette) or len(self.classes) > MOST_CLASSES:
            raise UsageError(
                f"{len(self.classes)} classes and {len(self.palette)} colors given, "
                f"expected one color for each class and at most {MOST_CLASSES}"
            )

    def legend(self) -> list[tuple[str, str]]:
        """Return names and colors as ``#rrggbb``: of the classes, or of the sides of a skeleton."""
        if self.task == "pose":
            return [(_SIDE_NAMES[side], _hex(bgr[::-1])) for side, bgr in SIDE_COLORS_BGR.items()]
        return [(name, _hex(rgb)) for name, rgb in zip(self.classes, self.palette, strict=True)]


def _hex(rgb: tuple[int, ...]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in rgb)
