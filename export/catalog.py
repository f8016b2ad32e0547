"""Sizes, variants and merging recipes by name, and recipes in the words of the SegFormer++ authors and a few of ours.

A recipe file is JSON: a list of four objects, one per stage, with any of these keys (missing modes merge nothing):

* ``q_mode``, ``kv_mode``: ``bsm``, ``n1d``, ``n2d``, or ``kmeans``, which is ours; for queries and for keys and values;
* with ``bsm``: ``q_r`` the ratio 0..1 of tokens to merge, ``q_sx`` and ``q_sy`` the cell's columns and rows;
* with ``n2d``: ``q_s`` the window as [rows, columns]; with ``n1d``: ``q_s`` the window in tokens;
* with ``kmeans``: ``q_r`` the ratio 0..1 of tokens to merge, ``q_rounds`` the rounds of assignment (default 2);
* ``kv_r``, ``kv_sx``, ``kv_sy``, ``kv_s``, ``kv_rounds`` likewise;
* ``kv_size``: true lets merged keys weigh by how many tokens they stand for; ours.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfpp.export.models.recipe import (
    NO_MERGING,
    Bipartite,
    GridHw,
    IsrRecipe,
    KMeans,
    Merging,
    MergingRecipe,
    Pool1d,
    Pool2d,
    Recipe,
    StageRecipe,
    matches_locally,
    with_matching,
    with_sizes,
)
from sfpp.export.settings import input_choice, numbers_text
from sfpp.runtime.contract import InputSpec, MatchingRule, ModelContract
from sfpp.runtime.errors import RecipeError, UsageError, did_you_mean
from sfpp.runtime.typed_json import file_named, json_from_file

# What each mode of merging takes beside itself.
MODES = {"bsm": ("r", "sx", "sy"), "n1d": ("s",), "n2d": ("s",), "kmeans": ("r", "rounds")}
_SIZE = "kv_size"
# More rounds hardly move a token; each costs as much as the first.
_MOST_ROUNDS = 10
# (channels per stage, blocks per stage); arXiv 2105.15203, table 6.
_WIDE = (64, 128, 320, 512)
MIT_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": (_WIDE, (2, 2, 2, 2)),
    "b2": (_WIDE, (3, 4, 6, 3)),
    "b3": (_WIDE, (3, 4, 18, 3)),
    "b4": (_WIDE, (3, 8, 27, 3)),
    "b5": (_WIDE, (3, 6, 40, 3)),
}
# The same of EDAFormer's encoder; arXiv 2407.17261.
EFT_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "t": ((32, 64, 128, 256), (2, 2, 10, 2)),
    "b": ((64, 128, 256, 512), (3, 3, 22, 3)),
}
# arXiv 2407.17261, table 6: EDAFormer as trained, and the reduction that its authors recommend.
ISR_VARIANTS: dict[str, IsrRecipe] = {"original": IsrRecipe(), "isr": IsrRecipe((2, 2, 1, 1), (2, 2, 2))}


@dataclass(frozen=True)
class Variant:
    """A named way of merging: ``name`` goes into file names and contracts."""

    name: str
    recipe: Recipe


def _early_and_late(key_value: Merging, query: Merging) -> MergingRecipe:
    """Merge keys and values in stages 1 and 2, queries in stages 3 and 4."""
    early, late = StageRecipe(key_value=key_value), StageRecipe(query=query)
    return MergingRecipe((early, early, late, late))


_HQ = _early_and_late(Bipartite(0.6, (2, 2)), Bipartite(0.8, (4, 4)))
# arXiv 2405.14467, section 4; the order is the one shown to users.
VARIANTS: dict[str, MergingRecipe] = {
    "original": NO_MERGING,
    "hq": _HQ,
    # Ours, as all that end in a plus: keys weigh by their sizes.
    "hq+": with_sizes(_HQ),
    "fast": _early_and_late(Bipartite(0.9, (4, 4)), Bipartite(0.9, (4, 4))),
    "fast+": with_sizes(_early_and_late(KMeans(0.9), Bipartite(0.9, (4, 4), local=True))),
    "2x2": MergingRecipe((StageRecipe(query=Pool2d((2, 2))),) * 4),
    "downsample": MergingRecipe(input_step=2),
    # Ours: what inference spatial reduction is to EDAFormer, for SegFormer. Stage 4 has no reduction to add to.
    "kv2x2": MergingRecipe((*(StageRecipe(key_value=Pool2d((2, 2))),) * 3, StageRecipe())),
}


def variant_for(family: str, name_or_file: str | Path, isr: str | None = None) -> Variant:
    """Return the variant of a network of ``family``, ``segformer`` or ``edaformer``.

    Raises:
        UsageError: unknown, or meant for the other family.
    """
    if family != "edaformer":
        if isr is not None or name_or_file == "isr":
            raise UsageError(
                "inference spatial reduction is EDAFormer's, and these weights are a SegFormer's; its sibling, keys "
                "and values averaged in 2x2 windows, is --variant kv2x2"
            )
        return variant_by_name(name_or_file)
    if (name := str(name_or_file)) not in ISR_VARIANTS:
        raise UsageError(
            f"the variant is {name!r}, but these weights are an EDAFormer's, which merges no tokens; expected one of "
            f"{', '.join(ISR_VARIANTS)}, or --isr with factors of your own, such as 2211-222"
        )
    if isr is not None:
        recipe = isr_from_text(isr)
        return Variant(f"isr-{recipe}", recipe)
    return Variant(name, ISR_VARIANTS[name])


def usual_matching(name: str) -> MatchingRule:
    """Return where the variant of this name looks for partners unless told otherwise."""
    return "local" if matches_locally(VARIANTS.get(name, NO_MERGING)) else "exact"


def matched(variant: Variant, matching: MatchingRule | None, share_matching: int = 1) -> Variant:
    """Return the variant with its bipartite matching exact or local, None for its own, and shared among blocks.

    Raises:
        UsageError: the variant matches nothing, so that the option would change nothing.
    """
    recipe, local = variant.recipe, matching == "local"
    if not local and share_matching == 1 and not matches_locally(recipe):
        return variant
    if not isinstance(recipe, MergingRecipe) or not (recipe.merges_bipartite or (recipe.matches and not local)):
        option = "--matching local" if local else f"--share-matching {share_matching or 'all'}"
        takes = "take hq, fast or a recipe file with bsm" if isinstance(recipe, MergingRecipe) else "reduce with --isr"
        raise UsageError(
            f"{option} says how tokens are matched, but the variant {variant.name!r} matches none; leave it out, or "
            f"{takes}"
        )
    changed = with_matching(recipe, local=None if matching is None else local, share_matching=share_matching)
    return Variant(variant.name, changed)


def size_weighted(variant: Variant) -> Variant:
    """Return the variant with merged keys that weigh by how many tokens they stand for.

    Raises:
        UsageError: it merges no keys, so that nothing would change.
    """
    recipe = variant.recipe
    if not isinstance(recipe, MergingRecipe) or not recipe.merges_keys:
        raise UsageError(
            f"--size-weighted says how much merged keys weigh, but the variant {variant.name!r} merges none; leave it "
            "out, or take hq, fast, kv2x2 or a recipe file with kv_mode"
        )
    return Variant(variant.name, with_sizes(recipe))


def is_size_weighted(contract: ModelContract) -> bool:
    """Whether a file was made with ``--size-weighted``, or might have been."""
    named = VARIANTS.get(contract.variant)
    keys = [stage for stage in contract.recipe if "kv_mode" in stage]
    return bool(keys) and all(stage.get("kv_size") is True for stage in keys) and not (named and named.sized)


def isr_from_text(text: str) -> IsrRecipe:
    """Read EDAFormer's reduction factors: ``2211-222``, four for the encoder's stages and three for the decoder's.

    Raises:
        UsageError: not seven digits from 1 to 9 in this form.
    """
    match = re.fullmatch(r"([1-9]{4})-([1-9]{3})", str(text))
    if match is None:
        raise UsageError(
            f"--isr is {text!r}, expected a factor for each of the encoder's stages 1 to 4, a hyphen, and one for each "
            "of the decoder's stages 2 to 4, such as 2211-222; 1 is as trained"
        )
    encoder, decoder = (tuple(int(digit) for digit in digits) for digits in match.groups())
    return IsrRecipe(encoder, decoder)


def variant_by_name(name_or_file: str | Path) -> Variant:
    """Return a named variant, or the recipe of a JSON file.

    Raises:
        UsageError: neither a known name nor a file, for which the closest name is suggested; or a file that has the
            name of a variant.
        RecipeError: the file's content is not a recipe.
    """
    text = str(name_or_file)
    if text in VARIANTS:
        return Variant(text, VARIANTS[text])
    path = file_named(text, VARIANTS, what="variant", file="recipe file")
    recipe = recipe_from_file(path)
    # Only the name tells variants apart in file names, contracts and the command that makes a file anew.
    if recipe != {**ISR_VARIANTS, **VARIANTS}.get(path.stem, recipe):
        raise UsageError(
            f"the recipe file {path} has the name of the variant {path.stem!r}, but differs from it; "
            "give it another name"
        )
    return Variant(path.stem, recipe)


def recipe_from_file(path: Path) -> MergingRecipe:
    """Read a recipe file.

    Raises:
        RecipeError: unreadable, not JSON, or not a recipe.
    """
    origin = f"the recipe {path}"
    stages = json_from_file(path, where=origin, raising=RecipeError, object_pairs_hook=_each_key_once)
    return recipe_from_words(stages, origin=origin)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    words = dict(pairs)
    if len(words) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return words


def recipe_from_words(stages: object, *, origin: str = "the recipe") -> MergingRecipe:
    """Read a recipe in the authors' words; the module's docstring lists them.

    Raises:
        RecipeError: not four objects, an unknown mode or key, a value out of range; the stage is named.
    """
    if not isinstance(stages, list) or len(stages) != 4 or not all(isinstance(stage, dict) for stage in stages):
        raise RecipeError(
            f"{origin} must be a list of four objects, one per stage; {{}} for a stage that does not merge"
        )
    return MergingRecipe(tuple(_stage_from_words(stage, f"{origin}, stage {n}") for n, stage in enumerate(stages, 1)))


def _stage_from_words(words: Mapping[str, Any], where: str) -> StageRecipe:
    parts = {"mode", *(part for used in MODES.values() for part in used)}
    known = {f"{side}_{part}" for side in ("q", "kv") for part in parts} | {_SIZE}
    for key in words:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")
    sized = words.get(_SIZE, False)
    if not isinstance(sized, bool):
        raise RecipeError(f"{where}: {_SIZE} is {sized!r}, expected true or false")
    return StageRecipe(_merging(words, "q", where), _merging(words, "kv", where), sized)


def _merging(words: Mapping[str, Any], side: str, where: str) -> Merging | None:
    mode = words.get(f"{side}_mode")
    if mode is None:
        if stray := [key for key in words if key.startswith(f"{side}_") and key != f"{side}_mode"]:
            raise RecipeError(f"{where}: {stray[0]} is given without {side}_mode, so it would merge nothing")
        return None
    if not isinstance(mode, str) or mode not in MODES:
        raise RecipeError(f"{where}: unknown {side}_mode {mode!r}; expected one of {', '.join(MODES)}")
    used = {_SIZE, *(f"{side}_{part}" for part in ("mode", *MODES[mode]))}
    if stray := [key for key in words if key.startswith(f"{side}_") and key not in used]:
        raise RecipeError(f"{where}: {stray[0]} means nothing with {side}_mode {mode!r}; leave it out")
    if mode == "bsm":
        cell_hw = (_positive(words, f"{side}_sy", where), _positive(words, f"{side}_sx", where))
        return Bipartite(_ratio(words, f"{side}_r", where), cell_hw)
    if mode == "kmeans":
        return KMeans(_ratio(words, f"{side}_r", where), _rounds(words, f"{side}_rounds", where))
    if mode == "n2d":
        return Pool2d(_window_2d(words, f"{side}_s", where))
    return Pool1d(_positive(words, f"{side}_s", where))


def _positive(words: Mapping[str, Any], key: str, where: str) -> int:
    value = words.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RecipeError(f"{where}: {key} is {value!r}, expected a whole number of at least 1")
    return value


def _rounds(words: Mapping[str, Any], key: str, where: str) -> int:
    rounds = _positive(words, key, where) if key in words else 2
    if rounds > _MOST_ROUNDS:
        raise RecipeError(f"{where}: {key} is {rounds}, expected 1 to {_MOST_ROUNDS}; two are usual")
    return rounds


def _ratio(words: Mapping[str, Any], key: str, where: str) -> float:
    value = words.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RecipeError(f"{where}: {key} is {value!r}, expected a number in 0..1")
    return float(value)


def _window_2d(words: Mapping[str, Any], key: str, where: str) -> GridHw:
    value = words.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise RecipeError(f"{where}: {key} is {value!r}, expected [rows, columns]")
    sides = {"rows": value[0], "columns": value[1]}
    return _positive(sides, "rows", f"{where}, {key}"), _positive(sides, "columns", f"{where}, {key}")


def words_from_recipe(recipe: Recipe) -> tuple[dict[str, Any], ...]:
    """Return a recipe in the authors' words, one dictionary per stage; the inverse of :func:`recipe_from_words`.

    EDAFormer's reduction is one dictionary, such as ``{"isr": "2211-222"}``.
    """
    if isinstance(recipe, IsrRecipe):
        return ({"isr": str(recipe)},)
    return tuple(
        {**_words(stage.query, "q"), **_words(stage.key_value, "kv"), **({_SIZE: True} if stage.sized else {})}
        for stage in recipe.stages
    )


def _words(merging: Merging | None, side: str) -> dict[str, Any]:
    if merging is None:
        return {}
    if isinstance(merging, Bipartite):
        rows, columns = merging.cell_hw
        return {f"{side}_mode": "bsm", f"{side}_r": merging.ratio, f"{side}_sx": columns, f"{side}_sy": rows}
    if isinstance(merging, KMeans):
        return {f"{side}_mode": "kmeans", f"{side}_r": merging.ratio, f"{side}_rounds": merging.rounds}
    if isinstance(merging, Pool2d):
        return {f"{side}_mode": "n2d", f"{side}_s": list(merging.window_hw)}
    return {f"{side}_mode": "n1d", f"{side}_s": merging.window}


def _preparation_options(contract: ModelContract) -> list[str]:
    """Return the options by which images are prepared as for a file, where that is not the usual way."""
    spec, usual = contract.input, InputSpec("frame", 1, 1)
    options = [
        f"--{fact} {numbers_text(getattr(spec, fact))}"
        for fact in ("mean", "std")
        if getattr(spec, fact) != getattr(usual, fact)
    ]
    options += [f"--color-order {spec.color_order}"] * (spec.color_order != usual.color_order)
    options += [f"--interpolation {spec.interpolation}"] * (spec.interpolation != usual.interpolation)
    # Where one thing is unusual, the checkpoint says something, and it may be another rule too.
    options += [f"--resize {spec.resize}"] * (bool(options) or spec.resize != usual.resize)
    return options + ["--align-corners"] * contract.outputs[0].align_corners


def export_command(contract: ModelContract, *more: str, weights: str) -> str:
    """Return the line with `sfpp-export` that makes a file of this kind anew, quoted for a shell.

    Args:
        contract: of the file; it may come from anywhere.
        more: further options, such as ``--target tensorrt``, which take the place of the file's own.
        weights: the checkpoint as it is to be shown.
    """
    isr = contract.recipe[0].get("isr") if contract.recipe else None
    # A variant without a name of ours is a recipe file, which the contract calls by its stem.
    variant = contract.variant if contract.variant in VARIANTS else f"{contract.variant}.json"
    options = [f"--isr {shlex.quote(str(isr))}" if isr else f"--variant {shlex.quote(variant)}"]
    options += [f"--weights-key {shlex.quote(contract.weights_key)}"] * bool(contract.weights_key)
    options += [f"--matching {contract.matching}"] * (contract.matching != usual_matching(contract.variant))
    options += [f"--share-matching {contract.share_matching or 'all'}"] * (contract.share_matching != 1)
    options += ["--size-weighted"] * is_size_weighted(contract)
    options += ["--output labels"] * (contract.outputs[0].kind in ("labels", "masks"))
    options += ["--multi-label"] * contract.multi_label
    options += [f"--threshold {contract.threshold}"] * (contract.threshold is not None)
    options += [f"--input {input_choice(contract.input)}"] * (input_choice(contract.input) != "uint8")
    options += [f"--batch {'1..' * contract.input.open_batch}{contract.input.batch}"] * (contract.input.batch != 1)
    options += _preparation_options(contract)
    stated = " ".join(more)
    if contract.target != "portable" and "--target" not in stated:
        options.append(f"--target {shlex.quote(contract.target)}")
    if contract.opset != 17 and "--opset" not in stated:
        options.append(f"--opset {contract.opset}")
    size = f"--res {contract.input.width}x{contract.input.height}"
    return " ".join(["sfpp-export --weights", weights, *options, *more, size])
