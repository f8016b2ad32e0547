"""Variants, recipes in the authors' words, and the errors of a recipe that cannot be meant."""

import json

import pytest

from sfpp.export.catalog import (
    MIT_SIZES,
    VARIANTS,
    Variant,
    matched,
    recipe_from_file,
    recipe_from_words,
    size_weighted,
    usual_matching,
    variant_by_name,
    words_from_recipe,
)
from sfpp.export.contracts import plan_tokens
from sfpp.export.models.recipe import NO_MERGING, Bipartite, KMeans, Pool1d, Pool2d, StageRecipe, matches_locally
from sfpp.runtime.errors import RecipeError, UsageError, did_you_mean
from tests.golden import FOLDER, golden_cases


def bsm(side, ratio, cell):
    return {f"{side}_mode": "bsm", f"{side}_r": ratio, f"{side}_sx": cell, f"{side}_sy": cell}


# arXiv 2405.14467, section 4, typed once more
PUBLISHED = {
    "original": [{}, {}, {}, {}],
    "hq": [bsm("kv", 0.6, 2), bsm("kv", 0.6, 2), bsm("q", 0.8, 4), bsm("q", 0.8, 4)],
    "fast": [bsm("kv", 0.9, 4), bsm("kv", 0.9, 4), bsm("q", 0.9, 4), bsm("q", 0.9, 4)],
    "2x2": [{"q_mode": "n2d", "q_s": [2, 2]}] * 4,
    "downsample": [{}, {}, {}, {}],
}
# Better merging without training: keys by k-means, and sizes.
OURS = {
    "hq+": [{**bsm("kv", 0.6, 2), "kv_size": True}] * 2 + [bsm("q", 0.8, 4)] * 2,
    "fast+": [{"kv_mode": "kmeans", "kv_r": 0.9, "kv_rounds": 2, "kv_size": True}] * 2 + [bsm("q", 0.9, 4)] * 2,
}
MIXED = [
    {"q_mode": "bsm", "q_r": 0.5, "q_sx": 3, "q_sy": 2, "kv_mode": "bsm", "kv_r": 1.0, "kv_sx": 1, "kv_sy": 4},
    {"q_mode": "n2d", "q_s": [2, 3], "kv_mode": "n1d", "kv_s": 5},
    {"q_mode": "n1d", "q_s": 4, "kv_mode": "n2d", "kv_s": [4, 1], "kv_size": True},
    {"q_mode": "kmeans", "q_r": 0.5, "q_rounds": 1},
]
BSM = {"q_mode": "bsm", "q_r": 0.5, "q_sx": 2, "q_sy": 2}
# 3840x2160, as the strided convolutions and the spatial reductions give them
GRIDS_4K = [((540, 960), (67, 120)), ((270, 480), (67, 120)), ((135, 240), (67, 120)), ((68, 120), (68, 120))]


def in_stage_two(words):
    return [{}, words, {}, {}]


@pytest.mark.parametrize("name", PUBLISHED)
def test_variants_are_the_published_ones(name):
    variant = variant_by_name(name)
    assert variant.name == name
    assert list(words_from_recipe(variant.recipe)) == PUBLISHED[name]
    assert variant.recipe.input_step == (2 if name == "downsample" else 1)


def test_users_see_the_published_variants_and_ours():
    assert list(VARIANTS) == ["original", "hq", "hq+", "fast", "fast+", "2x2", "downsample", "kv2x2"]
    assert set(PUBLISHED) <= set(VARIANTS)
    assert VARIANTS["original"] == NO_MERGING


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden cases in {FOLDER}")
def test_variants_merge_as_the_reference_models_do():
    cases = [case for case in golden_cases("segformerpp") if case.facts["variant"] in ("hq", "fast", "2x2")]
    assert cases
    for case in cases:
        assert list(words_from_recipe(VARIANTS[case.facts["variant"]])) == case.facts["merging"], case.name


@pytest.mark.parametrize(
    ("size", "channels", "depths"),
    [
        ("b0", (32, 64, 160, 256), (2, 2, 2, 2)),
        ("b1", (64, 128, 320, 512), (2, 2, 2, 2)),
        ("b2", (64, 128, 320, 512), (3, 4, 6, 3)),
        ("b3", (64, 128, 320, 512), (3, 4, 18, 3)),
        ("b4", (64, 128, 320, 512), (3, 8, 27, 3)),
        ("b5", (64, 128, 320, 512), (3, 6, 40, 3)),
    ],
)
def test_sizes_are_the_published_ones(size, channels, depths):
    assert MIT_SIZES[size] == (channels, depths)
    assert len(MIT_SIZES) == 6


def test_words_mean_rows_and_columns():
    first, second, third, fourth = recipe_from_words(MIXED).stages
    assert (first.query, first.key_value) == (Bipartite(0.5, (2, 3)), Bipartite(1.0, (4, 1)))  # sy before sx
    assert (second.query, second.key_value) == (Pool2d((2, 3)), Pool1d(5))
    assert (third.query, third.key_value) == (Pool1d(4), Pool2d((4, 1)))
    assert (fourth.query, fourth.key_value) == (KMeans(0.5, 1), None)
    assert [stage.sized for stage in (first, second, third, fourth)] == [False, False, True, False]


def test_rounds_are_two_unless_told():
    (stage, *_) = recipe_from_words([{"kv_mode": "kmeans", "kv_r": 0.9}, {}, {}, {}]).stages
    assert stage == StageRecipe(key_value=KMeans(0.9, rounds=2))


@pytest.mark.parametrize("name", OURS)
def test_our_variants(name):
    assert list(words_from_recipe(VARIANTS[name])) == OURS[name]


def test_where_partners_are_looked_for_unless_told_otherwise():
    assert {name: usual_matching(name) for name in ("fast", "hq+", "fast+", "2x2", "mine")} == {
        **dict.fromkeys(("fast", "hq+", "2x2", "mine"), "exact"),
        "fast+": "local",
    }
    own = variant_by_name("fast+")
    assert matched(own, None) == matched(own, "local") == own
    assert not matches_locally(matched(own, "exact").recipe)
    assert matches_locally(matched(own, None, share_matching=0).recipe)


def test_sizes_are_asked_of_what_merges_keys():
    assert size_weighted(variant_by_name("hq")) == Variant("hq", VARIANTS["hq+"])
    with pytest.raises(
        UsageError, match="--size-weighted says how much merged keys weigh, but the variant '2x2' merges"
    ):
        size_weighted(variant_by_name("2x2"))


@pytest.mark.parametrize("words", [MIXED, *PUBLISHED.values(), *OURS.values()])
def test_words_survive_the_trip_through_a_file(tmp_path, words):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(words))
    variant = variant_by_name(path)
    assert variant.name == "mine"
    assert list(words_from_recipe(variant.recipe)) == words
    assert recipe_from_words(list(words_from_recipe(variant.recipe))) == variant.recipe == recipe_from_file(path)


def test_a_mode_of_null_merges_nothing():
    words = [{"q_mode": None, "kv_mode": None}, {}, {}, {}]
    assert recipe_from_words(words) == NO_MERGING


@pytest.mark.parametrize("ratio", [0, 1, 0.0, 1.0])
def test_the_ends_of_the_ratio_are_in(ratio):
    merging = recipe_from_words(in_stage_two({**BSM, "q_r": ratio})).stages[1].query
    assert merging == Bipartite(float(ratio), (2, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # the modes of the authors' own presets, which their layers do not know
        ({"q_mode": "bsm_hq", "q_r": 0.9, "q_sx": 4, "q_sy": 4}, "unknown q_mode 'bsm_hq'; expected one of bsm, n1d"),
        ({"kv_mode": "n2d_2x2", "kv_s": [2, 2]}, "unknown kv_mode 'n2d_2x2'"),
        ({"q_mode": "BSM", "q_r": 0.9}, "unknown q_mode 'BSM'"),
        ({"q_mode": ["bsm"]}, "unknown q_mode"),
        ({"q_mode": ""}, "unknown q_mode ''"),
        ({"q_mod": "bsm"}, "unknown key 'q_mod', did you mean 'q_mode'"),
        ({**BSM, "kv_rr": 1}, "unknown key 'kv_rr', did you mean 'kv_r'"),
        ({**BSM, "something": 1}, "unknown key 'something'$"),
        ({"q_r": 0.5, "q_sx": 2, "q_sy": 2}, "q_r is given without q_mode"),
        ({**BSM, "kv_s": [2, 2]}, "kv_s is given without kv_mode"),
        ({"kv_mode": None, "kv_r": 0.5}, "kv_r is given without kv_mode"),
        ({**BSM, "q_s": [2, 2]}, "q_s means nothing with q_mode 'bsm'; leave it out"),
        ({"kv_mode": "n2d", "kv_s": [2, 2], "kv_r": 0.5}, "kv_r means nothing with kv_mode 'n2d'"),
        ({"q_mode": "n1d", "q_s": 2, "q_sx": 2}, "q_sx means nothing with q_mode 'n1d'"),
        ({**BSM, "q_r": 1.0001}, "q_r is 1.0001, expected a number in 0..1"),
        ({**BSM, "q_r": -0.1}, "q_r is -0.1"),
        ({**BSM, "q_r": float("nan")}, "q_r is nan"),
        ({**BSM, "q_r": True}, "q_r is True"),
        ({**BSM, "q_r": "0.5"}, "q_r is '0.5'"),
        ({"q_mode": "bsm", "q_sx": 2, "q_sy": 2}, "q_r is None"),
        ({"q_mode": "bsm", "q_r": 0.5, "q_sx": 2}, "q_sy is None, expected a whole number of at least 1"),
        ({"q_mode": "bsm", "q_r": 0.5, "q_sy": 2}, "q_sx is None"),
        ({**BSM, "q_sx": 0}, "q_sx is 0"),
        ({**BSM, "q_sy": -2}, "q_sy is -2"),
        ({**BSM, "q_sy": 2.0}, "q_sy is 2.0"),
        ({**BSM, "q_sx": True}, "q_sx is True"),
        ({"kv_mode": "n2d"}, r"kv_s is None, expected \[rows, columns\]"),
        ({"kv_mode": "n2d", "kv_s": 2}, "kv_s is 2"),
        ({"kv_mode": "n2d", "kv_s": [2, 2, 2]}, r"kv_s is \[2, 2, 2\]"),
        ({"kv_mode": "n2d", "kv_s": [0, 2]}, "kv_s: rows is 0"),
        ({"kv_mode": "n2d", "kv_s": [2, "2"]}, "kv_s: columns is '2'"),
        ({"q_mode": "n1d"}, "q_s is None"),
        ({"q_mode": "n1d", "q_s": 0}, "q_s is 0"),
        ({"q_mode": "n1d", "q_s": [2, 2]}, r"q_s is \[2, 2\]"),
        ({"kv_mode": "kmeans"}, "kv_r is None"),
        ({"kv_mode": "kmeans", "kv_r": 0.5, "kv_sx": 4}, "kv_sx means nothing with kv_mode 'kmeans'"),
        ({"kv_mode": "kmeans", "kv_r": 0.5, "kv_rounds": 0}, "kv_rounds is 0"),
        ({"kv_mode": "kmeans", "kv_r": 0.5, "kv_rounds": 11}, "kv_rounds is 11, expected 1 to 10"),
        ({**BSM, "q_rounds": 2}, "q_rounds means nothing with q_mode 'bsm'"),
        ({**BSM, "kv_size": True}, "kv_size is given without kv_mode"),
        ({"kv_mode": "n2d", "kv_s": [2, 2], "kv_size": 1}, "kv_size is 1, expected true or false"),
        ({**BSM, "q_size": True}, "unknown key 'q_size', did you mean 'kv_size'"),
    ],
)
def test_a_stage_that_cannot_be_meant_is_named(words, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe_from_words(in_stage_two(words), origin="the recipe mine.json")
    assert str(caught.value).startswith(("the recipe mine.json, stage 2: ", "the recipe mine.json, stage 2, kv_s: "))


@pytest.mark.parametrize("stages", [[], [{}] * 3, [{}] * 5, {}, "fast", None, 4, [{}, {}, {}, []], [{}, {}, {}, None]])
def test_a_recipe_is_four_objects(stages):
    with pytest.raises(RecipeError, match="list of four objects, one per stage"):
        recipe_from_words(stages)


@pytest.mark.parametrize("content", [b"", b"[{}, {}, {}, {}", b"fast", b"\xff\xfe[", b"[" * 100_000])
def test_a_file_that_is_not_json(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.json (is not valid JSON|cannot be read as UTF-8 text)"):
        variant_by_name(path)


def test_a_key_that_stands_twice(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('[{"kv_mode": "bsm", "kv_r": 0.1, "kv_r": 0.9, "kv_sx": 2, "kv_sy": 2}, {}, {}, {}]')
    with pytest.raises(RecipeError, match=r"mine\.json is not valid JSON: the key 'kv_r' stands twice"):
        variant_by_name(path)


def test_a_file_as_windows_writes_it(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(MIXED), encoding="utf-8-sig")
    assert variant_by_name(path).recipe == recipe_from_words(MIXED)


@pytest.mark.parametrize("name", ["fast", "downsample", "isr"])
def test_a_recipe_file_that_would_pass_for_a_variant(tmp_path, name):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(MIXED))
    words = rf"{name}\.json has the name of the variant '{name}', but differs from it; give it another name"
    with pytest.raises(UsageError, match=words):
        variant_by_name(path)


@pytest.mark.parametrize("name", ["original", "hq", "fast", "2x2", "kv2x2"])
def test_a_variants_recipe_in_a_file_of_its_name_is_that_variant(tmp_path, name):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(words_from_recipe(VARIANTS[name])))
    assert variant_by_name(path) == Variant(name, VARIANTS[name])


def test_a_folder_in_the_place_of_a_recipe_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder; give a file in it"):
        variant_by_name(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    path.write_text("[]")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_text", refuse)
    with pytest.raises(RecipeError, match=r"mine\.json cannot be read: Permission denied"):
        variant_by_name(path)


@pytest.mark.parametrize("name", ["mine.json", "folder/mine", "folder/mine.json"])
def test_a_missing_recipe_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"the recipe file {name} does not exist"):
        variant_by_name(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "fsat",
            ", did you mean 'fast'?; expected one of original, hq, hq+, fast, fast+, 2x2, downsample, kv2x2, or a "
            "recipe file",
        ),
        ("Fast", ", did you mean 'fast'?"),
        ("orignal", ", did you mean 'original'?"),
        ("2*2", ", did you mean '2x2'?"),
        ("zzz", "'zzz'; expected one of"),
        ("", "''; expected one of"),
    ],
)
def test_an_unknown_variant_suggests_the_closest(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="unknown variant") as caught:
        variant_by_name(name)
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_recipe_in_the_place_of_its_file_is_no_crash():
    with pytest.raises(UsageError, match="unknown variant"):
        variant_by_name(json.dumps(MIXED * 2).replace("/", ""))


def test_nothing_close_suggests_nothing():
    assert did_you_mean("xyz", ["fast", "original"]) == ""
    assert did_you_mean("Orginal", ["fast", "original"]) == ", did you mean 'original'?"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        # (queries, keys and values) a stage, from the published table of counts
        ("original", [(518400, 8040), (129600, 8040), (32400, 8040), (8160, 8160)]),
        ("hq", [(518400, 3216), (129600, 3216), (6480, 8040), (1632, 8160)]),
        ("fast", [(518400, 804), (129600, 804), (3240, 8040), (816, 8160)]),
        ("2x2", [(129600, 8040), (32400, 8040), (68 * 120, 8040), (34 * 60, 8160)]),
    ],
)
def test_tokens_are_planned_stage_by_stage(name, tokens):
    plan = plan_tokens(VARIANTS[name], GRIDS_4K)
    assert [(stage.query, stage.key_value) for stage in plan] == tokens
    assert [(stage.grid_hw, stage.key_value_grid_hw) for stage in plan] == GRIDS_4K


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            {"kv_mode": "bsm", "kv_r": 0.5, "kv_sx": 121, "kv_sy": 2},
            "a cell of 2x121 tokens does not fit a grid of 67x",
        ),
        ({"kv_mode": "bsm", "kv_r": 0.5, "kv_sx": 2, "kv_sy": 68}, "a cell of 68x2 tokens does not fit"),
        ({"q_mode": "n2d", "q_s": [271, 1]}, "a window of 271x1 tokens does not fit a grid of 270x480"),
        ({"q_mode": "n2d", "q_s": [1, 481]}, "a window of 1x481 tokens"),
        ({"kv_mode": "n1d", "kv_s": 8041}, "a window of 8041 tokens does not fit a grid of 8040 tokens"),
    ],
)
def test_a_cell_larger_than_the_grid_names_the_stage(words, what):
    with pytest.raises(RecipeError, match=f"^stage 2: {what}.*use a larger --res"):
        plan_tokens(recipe_from_words(in_stage_two(words)), GRIDS_4K)


@pytest.mark.parametrize(
    "words",
    [
        {"kv_mode": "bsm", "kv_r": 0.5, "kv_sx": 120, "kv_sy": 67},
        {"q_mode": "n2d", "q_s": [270, 480]},
        {"kv_mode": "n1d", "kv_s": 8040},
    ],
)
def test_a_cell_as_large_as_the_grid_fits(words):
    plan = plan_tokens(recipe_from_words(in_stage_two(words)), GRIDS_4K)
    expected = {"kv_sx": (129600, 1 + 8039 - 4020), "q_s": (1, 8040), "kv_s": (129600, 1)}
    assert (plan[1].query, plan[1].key_value) == next(value for key, value in expected.items() if key in words)
