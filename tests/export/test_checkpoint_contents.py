"""Which network of a file is read, what beside it is left out, and what is said of both."""

from __future__ import annotations

import argparse
import collections
import enum
import pathlib
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_checkpoint
from sfpp.runtime.errors import CheckpointError

State = dict[str, torch.Tensor]
BIAS = "decode_head.conv_seg.bias"


@pytest.fixture(scope="module")
def weights() -> State:
    return load_file(demo_checkpoint())


@pytest.fixture(scope="module")
def expected() -> State:
    return read_checkpoint(demo_checkpoint()).state


def averaged(state: State) -> State:
    return {key: value * 0.5 if value.is_floating_point() else value for key, value in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def saved(folder: Path, payload: object) -> Path:
    torch.save(payload, folder / "weights.pth")
    return folder / "weights.pth"


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def refused(path: Path, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    return str(caught.value)


# Objects beside the weights


class Kind(enum.Enum):
    FIRST = 1


class Settings(dict):
    """A dictionary with attributes, as configuration libraries have."""


class Names(list):
    """A list of a class of its own."""


class Watched:
    """Says so when it is used."""

    def __init__(self):
        self.x = 1

    def __setstate__(self, state):
        raise AssertionError("a class that the file names was used")


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        (argparse.Namespace(lr=1, out=pathlib.PurePosixPath("/d")), "argparse.Namespace, pathlib.PurePosixPath"),
        ({"kind": Kind.FIRST}, "tests.export.test_checkpoint_contents.Kind"),
        (Settings(lr=1, inner=Settings(a=[1])), "tests.export.test_checkpoint_contents.Settings"),
        (Names(["a", Names("b")]), "tests.export.test_checkpoint_contents.Names"),
        (collections.defaultdict(list, a=[1]), "builtins.list, collections.defaultdict"),
        (
            [Watched(), {"f": partial(print, 1)}],
            "builtins.print, functools.partial, tests.export.",
        ),
    ],
)
@pytest.mark.parametrize("old_format", [False, True])
def test_objects_beside_the_weights_are_passed_over(tmp_path, weights, expected, beside, names, old_format):
    path = tmp_path / "weights.pth"
    payload = {"model": weights, "args": beside}
    torch.save(payload, path, _use_new_zipfile_serialization=not old_format)
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.state, expected)
    (note,) = checkpoint.notes
    assert note.startswith(f"objects beside the weights were passed over, and nothing of them was run: {names}")


class Part(torch.nn.Module):
    """A module of which the test knows that it is never used."""

    def __setstate__(self, state):
        raise AssertionError("a class that the file names was used")


def as_module(state: State) -> torch.nn.Module:
    root = Part()
    for key, value in state.items():
        *path, last = key.split(".")
        module = root
        for name in path:
            if name not in module._modules:
                module.add_module(name, Part())
            module = module._modules[name]
        is_buffer = "running" in last or not value.is_floating_point()
        (module.register_buffer if is_buffer else module.register_parameter)(
            last, value.clone() if is_buffer else torch.nn.Parameter(value.clone())
        )
    root.register_buffer("scratch", torch.zeros(3), persistent=False)
    return root


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"epoch": 3, "model": model}])
def test_a_whole_module_is_read_as_data(tmp_path, weights, expected, wrap):
    checkpoint = read_checkpoint(saved(tmp_path, wrap(as_module(weights))))
    assert same(checkpoint.state, expected)
    assert checkpoint.notes[0].startswith("the file holds a whole pickled model: its weights were read")


def test_a_whole_module_of_another_network(tmp_path):
    path = saved(tmp_path, torch.nn.Linear(2, 2))
    assert "not a SegFormer or EDAFormer in a known style: it has keys such as bias, weight" in refused(path)


# Several networks


@pytest.mark.parametrize(
    ("arrange", "plain", "average"),
    [
        (lambda one, two: {"state_dict": one, "state_dict_ema": two}, "state_dict", "state_dict_ema"),
        (lambda one, two: {"ema": two, "model": one}, "model", "ema"),
        (lambda one, two: {"model_ema": prefixed(two, "module."), "model": one}, "model", "model_ema"),
        (lambda one, two: {"ema": {"decay": 0.9, "state_dict": two}, "net": one}, "net", "ema"),
        (lambda one, two: {"params_ema": two, "params": one}, "params", "params_ema"),
        (lambda one, two: {"teacher": two, "student": one}, "student", "teacher"),
        (
            lambda one, two: {"state_dict": {**prefixed(two, "ema_model."), **prefixed(one, "model.")}},
            "state_dict.model",
            "ema_model",
        ),
        (lambda one, two: {**prefixed(two, "ema.module."), **prefixed(one, "net._orig_mod.")}, "net", "ema"),
        (
            lambda one, two: {
                "state_dict": {
                    **one,
                    **{f"ema_{key.replace('.', '_')}": two[key] for key in two if "running" not in key},
                }
            },
            "state_dict",
            "ema_",
        ),
    ],
)
def test_the_plain_network_is_taken_and_the_other_one_on_request(tmp_path, weights, expected, arrange, plain, average):
    path = saved(tmp_path, arrange(weights, averaged(weights)))
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.state, expected)
    assert checkpoint.weights_key == plain
    assert f"the weights are those under {plain!r}; the file also holds" in checkpoint.notes[0]
    assert average in checkpoint.notes[0]
    assert "--weights-key chooses" in checkpoint.notes[0]
    other = read_checkpoint(path, weights_key=average)
    assert torch.equal(other.state["head.classifier.bias"], weights[BIAS].float() * 0.5)
    assert other.weights_key.endswith(average) or other.weights_key.startswith(f"{average}.")
    assert same(read_checkpoint(path, weights_key=plain).state, expected)
    assert same(read_checkpoint(path, usual_key="nothing").state, expected)
    assert torch.equal(
        read_checkpoint(path, usual_key=other.weights_key).state["head.classifier.bias"], weights[BIAS] / 2
    )


def test_tools_that_exchange_the_average_and_the_plain_weights(tmp_path, weights):
    ema = {"steps": torch.tensor(4), **prefixed(averaged(weights), "module.")}
    path = saved(tmp_path, {"meta": {"mmengine_version": "0.10.7"}, "state_dict": weights, "ema_state_dict": ema})
    checkpoint = read_checkpoint(path)
    assert checkpoint.weights_key == "state_dict"
    assert "mmengine's EMAHook exchanges the two when it saves: 'state_dict' holds the averaged" in checkpoint.notes[1]
    assert "(averaged)" not in checkpoint.notes[0]
    assert torch.equal(
        read_checkpoint(path, weights_key="ema_state_dict").state["head.classifier.bias"], weights[BIAS] / 2
    )
    extra = {"current_model_state": averaged(weights), "averaging_state": {"n_averaged": torch.tensor(3)}}
    notes = read_checkpoint(saved(tmp_path, {"state_dict": weights, **extra})).notes
    assert "Lightning's WeightAveraging exchanges the two" in notes[1]
    assert "'current_model_state' those that training goes on with" in notes[1]


def test_an_average_alone_and_copies_that_are_equal(tmp_path, weights, expected):
    checkpoint = read_checkpoint(saved(tmp_path, {"ema": weights, "epoch": 1}))
    assert same(checkpoint.state, expected)
    assert checkpoint.notes == ("the weights are those under 'ema', averaged over training (EMA): there are no others",)
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": weights, "ema": dict(weights)}))
    assert (checkpoint.notes, checkpoint.weights_key) == ((), "")


def test_networks_between_which_nothing_decides(tmp_path, weights, expected):
    path = saved(tmp_path, {"first": weights, "second": averaged(weights)})
    assert "holds several networks, and nothing tells which one is meant: choose one with --weights-key: " in refused(
        path
    )
    assert "'first', 'second'" in refused(path)
    assert same(read_checkpoint(path, weights_key="first").state, expected)


def test_a_weights_key_that_is_not_there(tmp_path, weights):
    path = saved(tmp_path, {"state_dict": weights, "ema": averaged(weights)})
    assert "no networks under 'swa', expected one of 'state_dict', 'ema'" in refused(path, weights_key="swa")
    assert "one network only: leave --weights-key out" in refused(demo_checkpoint(), weights_key="ema")


# Keys beside the network's


def test_what_training_keeps_beside_the_network_is_left_out_and_named(tmp_path, weights, expected):
    extra = {
        "criterion.weight": torch.ones(11),
        "train_iou.confmat": torch.zeros(11, 11),
        "projector.weight": torch.ones(2),
    }
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": {**prefixed(weights, "model."), **extra}}))
    assert same(checkpoint.state, expected)
    assert checkpoint.notes == (
        "left out, since they are not the network's: criterion.weight, train_iou.confmat, projector.weight",
    )


@pytest.mark.parametrize("key", ["criterion.weight", "loss_fn.pos_weight", "val_metrics.iou.confmat", "class_weights"])
def test_losses_and_metrics_within_the_same_prefix_are_left_out(tmp_path, weights, expected, key):
    for prefix in ("", "model."):
        path = saved(tmp_path, {"state_dict": prefixed({**weights, key: torch.ones(11)}, prefix)})
        assert same(read_checkpoint(path).state, expected)
        assert read_checkpoint(path).notes == (f"left out, since they are not the network's: {key}",)


def test_a_normalization_beside_the_network_is_told_with_its_values(tmp_path, weights, expected):
    extra = {"mean": torch.tensor([0.5, 0.25, 0.5]).reshape(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": {**prefixed(weights, "model."), **extra}}))
    assert same(checkpoint.state, expected)
    assert "mean is 0.5 0.25 0.5: compare with the mean and std that are used" in checkpoint.notes[1]


@pytest.mark.parametrize("key", ["neck.conv.weight", "decode_head.attention.weight", "backbone.lossy.weight"])
@pytest.mark.parametrize("prefix", ["", "model.", "net.module."])
def test_an_unknown_key_inside_the_network_is_refused(tmp_path, weights, key, prefix):
    path = saved(tmp_path, {"state_dict": prefixed({**weights, key: torch.ones(3)}, prefix)})
    assert f"1 unexpected: {key}. " in refused(path)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"net.{key}",
        lambda key: f"model.module.{key}",
        lambda key: key.replace("backbone.", "backbone._orig_mod."),
        lambda key: f"_orig_mod.module.{key}".replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
        lambda key: f"model._fsdp_wrapped_module.{key}".replace(".decode_head.", ".decode_head.module."),
    ],
)
def test_wrappers_anywhere_in_a_path(tmp_path, weights, expected, rename):
    checkpoint = read_checkpoint(saved(tmp_path, {"net": {rename(key): value for key, value in weights.items()}}))
    assert same(checkpoint.state, expected)
    assert checkpoint.notes == ()


def test_encoder_and_head_in_dictionaries_of_their_own(tmp_path, weights, expected):
    parts = {
        name: {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        for name in ("backbone", "decode_head")
    }
    assert same(read_checkpoint(saved(tmp_path, {**parts, "epoch": 1})).state, expected)


# What is no such checkpoint


@pytest.mark.parametrize(
    ("keys", "head"),
    [
        (["decode_head.embed_layers.0.proj.weight", BIAS], "DAFormer"),
        (["decode_head.lateral_convs.0.conv.weight", "decode_head.psp_modules.0.1.conv.weight", BIAS], "UPerNet"),
        (["decode_head.convs.0.conv.weight", BIAS], "FCN"),
        (["decoder.blocks.0.conv1.0.weight"], "U-Net"),
        (["head.weight"], "ImageNet classification"),
    ],
)
def test_another_head_is_named(tmp_path, weights, keys, head):
    encoder = {key: value for key, value in weights.items() if key.startswith("backbone.")}
    message = refused(saved(tmp_path, {"state_dict": {**encoder, **dict.fromkeys(keys, torch.zeros(3))}}))
    assert f"found instead {keys[0]}" in message
    assert f", but that of {head}, and sfpp reads SegFormer's own alone" in message


def test_adapters_that_are_not_merged(tmp_path, weights):
    name = "base_model.model.segformer.encoder.block.0.0.attention.self.query"
    lora = {f"{name}.base_layer.weight": torch.ones(32, 32), f"{name}.lora_A.default.weight": torch.ones(8, 32)}
    path = saved(tmp_path, {**weights, **lora})
    assert "holds adapters (LoRA, of PEFT)" in refused(path)
    assert "model.merge_and_unload().save_pretrained('merged')" in refused(path)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({f"{name}.lora_A.weight": torch.ones(8, 32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "nvidia/mit-b0"}')
    assert "SegformerForSemanticSegmentation.from_pretrained('nvidia/mit-b0')" in refused(folder)
    assert "holds adapters" in refused(folder / "adapter_model.safetensors")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, for TorchScript
def test_programs_with_their_weights(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.jit.trace(module, torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    message = refused(tmp_path / "script.pt")
    assert "script.pt is a TorchScript archive, a network with its code" in message
    code = message.split("if you trust the file: ")[1].split(";")[0].replace("'weights.pth'", "path")
    exec(code, {"torch": torch, "path": tmp_path / "weights.pth"})
    assert torch.load(tmp_path / "weights.pth").keys() == {"weight", "bias"}
    torch.export.save(torch.export.export(module, (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    assert "is a program of torch.export" in refused(tmp_path / "program.pt2")


def test_folders_of_a_training(tmp_path):
    for step in (500, 1500, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert f"the newest of 3 is {tmp_path / 'checkpoint-1500'}" in refused(tmp_path)


def test_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(Path("nvidia/segformer-b0"))
    assert "hf download nvidia/segformer-b0 --local-dir segformer-b0; then give the folder segformer-b0" in message
    for path in ("out/weights.pth", "a/b/c", str(tmp_path / "a" / "b")):
        assert "hf download" not in refused(Path(path))


def test_state_dictionaries_of_a_class_of_their_own(tmp_path, weights, expected):
    checkpoint = read_checkpoint(saved(tmp_path, Settings(state_dict=Settings(weights))))
    assert same(checkpoint.state, expected)
    assert same(read_checkpoint(saved(tmp_path, {"state_dict": OrderedDict(weights)})).state, expected)
