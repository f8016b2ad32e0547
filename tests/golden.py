"""The golden cases: frames with the answers of the reference models, and weights that are made from their keys."""

import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[2] / "shared" / "golden"


@dataclass(frozen=True)
class GoldenCase:
    name: str

    @cached_property
    def facts(self) -> dict:
        return json.loads((FOLDER / f"{self.name}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{self.name}.npz") as stored:
            return dict(stored)

    @property
    def frame_rgb(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        return self.arrays["frame"]

    @property
    def output(self) -> np.ndarray:
        """(1, channels, h, w) float32."""
        return self.arrays["output"]

    @property
    def merges_bipartite(self) -> bool:
        return any("bsm" in stage.values() for stage in self.facts.get("merging", []))

    def state_dict(self) -> dict[str, torch.Tensor]:
        spec = importlib.util.spec_from_file_location("golden_weights", FOLDER / "weights.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {key: torch.from_numpy(value) for key, value in module.golden_state_dict(self.facts["keys"]).items()}

    def save_checkpoint(self, folder: Path) -> Path:
        path = folder / f"{self.name}.pth"
        torch.save({"state_dict": self.state_dict()}, path)
        return path

    def variant(self, folder: Path) -> dict[str, str | Path]:
        """The arguments of an export: a variant's name, a recipe file for what has no name, or reduction factors."""
        if "backbone_reduction" in self.facts:
            factors = (self.facts["backbone_reduction"], self.facts["decoder_reduction"])
            return {"isr": "-".join("".join(map(str, each)) for each in factors)}
        return {"variant": self._merging(folder)}

    def _merging(self, folder: Path) -> str | Path:
        variant = self.facts["variant"]
        if variant == "custom":
            path = folder / "custom.json"
            path.write_text(json.dumps(self.facts["merging"]))
            return path
        return "original" if variant == "none" else variant

    def assert_close(self, logits: np.ndarray) -> None:
        """Hold logits to the tolerance of their kind: continuous, or with near ties of bipartite matching."""
        assert logits.shape == self.output.shape
        difference = np.abs(logits - self.output)
        if self.merges_bipartite:
            agreement = np.mean(logits.argmax(1) == self.output.argmax(1))
            assert agreement >= 0.999
            assert difference.max() < 2e-2
            assert difference.mean() < 1e-3
        else:
            assert difference.max() < 1e-4


def golden_cases(prefix: str) -> list[GoldenCase]:
    return [GoldenCase(path.stem) for path in sorted(FOLDER.glob(f"{prefix}*.json"))]
