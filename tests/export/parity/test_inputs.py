"""The usual mistakes with a network's input, each recognized by what it makes of a picture."""

import dataclasses

import numpy as np
import pytest

from sfpp.export.parity.inputs import closest, fitted_normalization, relative_error, suspects
from sfpp.runtime.contract import InputSpec, ModelContract, OutputSpec
from sfpp.runtime.images import batch_from_frames

FRAME = np.random.default_rng(8).integers(0, 256, (60, 50, 3), np.uint8)
TRAINED = InputSpec("image", 32, 48, layout="NCHW", dtype="float32", normalized_in_graph=False)
MEAN, STD = (np.array(values).reshape(1, 3, 1, 1) for values in (TRAINED.mean, TRAINED.std))


def contract(**changes):
    return ModelContract(
        task="segmentation",
        family="segformer",
        size="b0",
        variant="original",
        input=dataclasses.replace(InputSpec("frame", 32, 48), **changes),
        outputs=(OutputSpec("logits", "logits", 4),),
        classes=("a",),
        palette=((0, 0, 0),),
    )


def prepare(spec):
    return batch_from_frames([FRAME], spec)[0].astype(np.float32)


def raw():
    return prepare(dataclasses.replace(TRAINED, normalized_in_graph=True)).astype(np.float64)


def found(image, said=None, **options):
    settings = {"step": 1, "tolerance": 2e-5, **options}
    return closest(suspects(said or contract(), TRAINED, prepare), np.asarray(image, np.float32), **settings)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (lambda x: (x[:, ::-1] - MEAN) / STD, "red and blue exchanged"),
        (
            lambda x: ((x - MEAN) / STD)[:, ::-1],
            "red and blue exchanged and mean and std in the order blue, green, red",
        ),
        (lambda x: (x - MEAN[:, ::-1]) / STD[:, ::-1], "mean and std in the order blue, green, red"),
        (lambda x: x, "normalization skipped"),
        (lambda x: ((x - MEAN) / STD - MEAN) / STD, "normalization applied twice"),
        (lambda x: x / 255, "values of 0..1"),
        (lambda x: x[:, ::-1] / 255, "red and blue exchanged and values of 0..1"),
        (lambda x: x / 127.5 - 1, "values of -1..1"),
        (lambda x: (x / 255 - MEAN) / STD, "values of 0..1 normalized as if they were 0..255"),
        (lambda x: (x - MEAN / 255) / (STD / 255), "values of 0..255 normalized as if they were 0..1"),
        (lambda x: x - MEAN, "the mean subtracted only"),
        (lambda x: x / STD, "the division by std only"),
        (lambda x: ((x - MEAN) / STD)[..., ::-1], "the picture mirrored"),
        (lambda x: ((x - MEAN) / STD)[:, :, ::-1], "the picture upside down"),
        (lambda x: prepare(dataclasses.replace(TRAINED, resize="stretch")), "the resize rule stretch"),
    ],
)
def test_a_mistake_is_named(image, words):
    assert found(image(raw())).words == words


def test_the_contracts_own_words_are_blamed():
    said = contract(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), dtype="float32", normalized_in_graph=False)
    image = prepare(dataclasses.replace(said.input, layout="NCHW"))
    suspect = found(image, said)
    assert suspect.words == "the contract's mean and std"
    assert suspect.verdict == (
        "mean/std differ: contract says mean (1, 2, 3) and std (4, 5, 6), "
        "the checkpoint's training says mean (123.675, 116.28, 103.53) and std (58.395, 57.12, 57.375)"
    )


def test_what_is_none_of_them_is_not_named():
    noise = np.random.default_rng(9).normal(0, 1, (1, 3, 32, 48))
    assert found(noise) is None
    assert found((raw() - MEAN) / STD + 0.1 * noise) is None
    assert found(raw() / 255 + 0.01 * noise, tolerance=0.1).words == "values of 0..1"


def test_a_network_that_thins_its_input_out():
    image = ((raw()[:, ::-1] - MEAN) / STD)[:, :, ::2, ::2]
    assert found(image, step=2).words == "red and blue exchanged"


def test_any_normalization_is_read_off_the_values():
    mean, std = (np.array(each).reshape(1, 3, 1, 1) for each in ((10, 20, 30), (40, 50, 60)))
    words = fitted_normalization((raw() - mean) / std, raw(), tolerance=2e-5)
    assert words == "the graph normalizes with mean (10, 20, 30) and std (40, 50, 60)"
    words = fitted_normalization((raw()[:, [1, 2, 0]] - mean) / std, raw(), tolerance=2e-5)
    assert words.startswith("the graph takes its channels in the order GBR and normalizes with mean (10, 20, 30)")
    assert fitted_normalization(raw() ** 2, raw(), tolerance=2e-5) is None
    assert fitted_normalization(np.zeros_like(raw()), raw(), tolerance=2e-5) is None


def test_other_shapes_are_infinitely_far_apart():
    assert relative_error(np.zeros((1, 3, 2, 2)), np.zeros((1, 3, 2, 4))) == float("inf")
