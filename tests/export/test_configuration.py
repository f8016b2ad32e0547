"""The configuration in a checkpoint's meta: read as data, and never run."""

import pytest

from sfpp.export.checkpoints.configuration import (
    ABSENT,
    UNREADABLE,
    Configuration,
    kind_of,
    merging_in_training,
    shown,
    stored_configuration,
)


def read(text, key="cfg"):
    return stored_configuration({key: text})


def test_literals_names_and_dict_calls():
    found = read(
        """
crop_size = (512, 1024)
norm = dict(type='SyncBN', requires_grad=True)
rest = {'a': None, 'b': [1, -2.5, +3e2]}
model = dict(
    backbone=dict(norm_cfg=norm, depths=[2, 2], drop=0.0, pretrained=None),
    crop=crop_size,
    **rest)
"""
    )
    assert (found.source, found.problem) == ("meta.cfg", "")
    assert found.at("model") == {
        "backbone": {
            "norm_cfg": {"type": "SyncBN", "requires_grad": True},
            "depths": [2, 2],
            "drop": 0.0,
            "pretrained": None,
        },
        "crop": (512, 1024),
        "a": None,
        "b": [1, -2.5, 300.0],
    }
    assert found.at("model", "backbone", "norm_cfg", "type") == "SyncBN"
    assert found.at("model", "neck") is ABSENT
    assert found.at("model", "crop", "width") is ABSENT


def test_where_it_is_stored():
    assert stored_configuration({}) is None
    assert stored_configuration({"cfg": "  ", "config": 3}) is None
    assert read("a = 1", "config").source == "meta.config"
    assert stored_configuration({"cfg": {"a": {"b": 2}}}).at("a", "b") == 2


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("model = dict(backbone=dict(merging=[dict(kv_mode='bsm'), dict(q_mode=None)]))", "model.backbone.merging[0]"),
        (
            "stage = {'q_mode': 'n2d', 'q_s': [2, 2]}\nmodel = dict(backbone={'cfg': (stage, stage)})",
            "model.backbone.cfg[0]",
        ),
        ("model = dict(backbone=dict(merging=[dict(kv_mode=None), dict(q_mode='')]))", None),
        ("other = dict(kv_mode='bsm')\nmodel = dict(backbone=dict(depths=[2, 2]))", None),
        ("model = load('model.py')", None),
    ],
)
def test_where_it_says_that_training_merged_tokens(text, where):
    assert merging_in_training({"cfg": text}) == (f"meta.cfg, {where}" if where else "")
    assert merging_in_training({}) == ""


@pytest.mark.parametrize(
    "text",
    [
        "open('ran', 'w')",
        "__import__('os').system('touch ran')",
        "[open('ran', 'w') for _ in (1,)]",
        "(lambda: open('ran', 'w'))()",
        "f\"{open('ran', 'w')}\"",
        "dict([open('ran', 'w')])",
        "1 if open('ran', 'w') else 2",
        "{open('ran', 'w'): 1}",
        "dict(**open('ran', 'w'))",
        "(found := open('ran', 'w'))",
        "2 ** 10 ** 10",
        "'x' * 10 ** 12",
        "1j",
        "-'x'",
        "-True",
        "unknown",
        "known[0]",
        "known.real",
    ],
)
def test_what_is_no_literal_is_unreadable_and_is_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(f"known = 1\nvalue = {text}\ninside = dict(a=[{text}, known])\nafter = 2")
    assert found.at("value") is UNREADABLE
    assert found.at("value", "key") is UNREADABLE
    assert found.at("inside", "a") == [UNREADABLE, 1]
    assert found.at("after") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = (", "it is not Python (SyntaxError)"),
        ("a = 1\0", "it is not Python"),
        ("a = " + "(" * 5000 + ")" * 5000, "it is not Python"),
        ("a = " + "-" * 20_000 + "1", "it is not Python"),
        ("a = a" + ".b" * 20_000, "it is not Python"),
        ("a = 1" + " + 1" * 20_000, "it is not Python"),
        ("a = " + "9" * 10_000, "it is not Python"),
        ("a = 1\n" * 700_000, "it has 4200000 characters"),
        ("_base_ = ['x.py']\na = 1", "it takes over other files with _base_"),
        ("a = dict(b=1)\na['b'] = 2", "it changes its values by code, which is not run"),
        ("a = dict(b=1)\na.update(b=2)", "it changes its values by code"),
        ("a = [1]\nfor each in a: pass", "it changes its values by code"),
        ("a = 1\na += 1", "it changes its values by code"),
        ("a = 1\ndel a", "it changes its values by code"),
    ],
)
def test_of_other_texts_nothing_is_known(text, problem):
    found = read(text)
    assert found.problem.startswith(problem)
    assert found.at("a") is ABSENT
    assert found.test_steps() == []


def test_numbers_without_end_are_kept_as_they_are():
    found = read(f"a = 0x{'f' * 5000}\nb = 1e999")
    assert found.at("a") > 10**1000
    assert found.at("b") == float("inf")


def test_code_that_touches_no_value_is_passed_over():
    found = read("import os\nfrom a import b\n'words'\nmodel = dict(c=b)\ndef f(): pass\nos.system('x')\nlast: int = 3")
    assert found.problem == ""
    assert found.at("model", "c") is UNREADABLE
    assert found.at("last") == 3


def test_a_value_in_a_message_is_short():
    text = "a0 = [1, 1]\n" + "".join(f"a{i} = [a{i - 1}, a{i - 1}]\n" for i in range(1, 200))
    assert len(shown(read(text).at("a199"))) < 1000
    assert shown(UNREADABLE) == "what sfpp cannot read without running it"


def test_the_steps_of_testing():
    new = read("test_pipeline = [dict(type='LoadImageFromFile'), dict(type='mmcv.transforms.Resize', scale=(4, 2))]")
    assert [kind_of(step) for step in new.test_steps()] == ["LoadImageFromFile", "Resize"]
    old = read(
        """
inner = [dict(type='Resize', keep_ratio=True), dict(type='Normalize', mean=[1, 2, 3])]
data = dict(test=dict(pipeline=[dict(type='MultiScaleFlipAug', img_scale=(2048, 512), flip=False, transforms=inner)]))
test_pipeline = [dict(type='Other')]
""",
        "config",
    )
    resize, normalize = old.test_steps()
    assert resize == {"type": "Resize", "keep_ratio": True, "img_scale": (2048, 512)}
    assert normalize == {"type": "Normalize", "mean": [1, 2, 3]}
    loader = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Pad')]))"
    assert read(loader).test_steps() == [{"type": "Pad"}]
    assert Configuration("meta.cfg", {"test_pipeline": UNREADABLE}).test_steps() == []


def test_steps_that_double_again_and_again_end():
    text = "s0 = [dict(type='Resize')]\n" + "".join(
        f"s{i} = [dict(type='MultiScaleFlipAug', transforms=s{i - 1}), dict(type='MultiScaleFlipAug', "
        f"transforms=s{i - 1})]\n"
        for i in range(1, 100)
    )
    assert len(read(text + "test_pipeline = s99").test_steps()) == 4
