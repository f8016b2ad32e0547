import numpy as np
import onnx
import pytest
import torch

from benchmarks.speed.models import export_transformers, save_checkpoint, score_bytes, seeded_integers, target_of
from benchmarks.speed.pytorch import EagerRequest, eager_peak_bytes, library_model, open_eager
from sfpp.export.demo import demo_frame
from sfpp.export.settings import Resolution
from sfpp.runtime import load, read_image
from sfpp.runtime.agreement import label_agreement
from sfpp.runtime.bench.measured_model import BenchFrame
from sfpp.runtime.contract import METADATA_KEY, contract_from_json
from sfpp.runtime.onnx_file import metadata_of

pytest.importorskip("transformers", reason="the Transformers library is not installed")

SIZE = Resolution(96, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint("b0", tmp_path_factory.mktemp("speed") / "checkpoint")


@pytest.fixture(scope="module")
def exported(checkpoint):
    """The library's own export, with its contract."""
    path = checkpoint.parent / "transformers.onnx"
    return path, export_transformers(checkpoint, path, network="b0", size=SIZE)


@pytest.fixture(scope="module")
def picture():
    return BenchFrame(read_image(demo_frame()), fitted=True)


def test_the_rule_of_the_weights_is_the_same_on_every_machine():
    assert seeded_integers("a.weight", 5).tolist() == [9548, 55045, 31643, 4509, 46029]
    many = seeded_integers("b", 100_001)
    assert many.shape == (100_001,)
    assert abs(many.mean() - 32767.5) < 200
    assert many.std() == pytest.approx(2**16 / np.sqrt(12), rel=0.01)


def test_the_exported_file_answers_as_the_library_does(checkpoint, exported):
    path, _ = exported
    segmenter = load(path, backend="onnxruntime")
    prepared = segmenter.prepare(read_image(demo_frame()))
    assert prepared.tensor.shape == (1, 3, 64, 96)
    with torch.inference_mode():
        expected = library_model(checkpoint, attention="eager")(
            pixel_values=torch.from_numpy(prepared.tensor)
        ).logits.numpy()
    answer = segmenter.infer(prepared)["logits"]
    assert np.abs(answer - expected).max() < 1e-4 * np.abs(expected).max()
    assert len(np.unique(expected.argmax(axis=1))) > 2


def test_the_contract_is_in_the_file_and_counts_the_work(exported):
    path, contract = exported
    assert contract_from_json(metadata_of(path)[METADATA_KEY]) == contract
    assert contract.multiply_adds == multiply_adds_of_b0(SIZE)
    assert onnx.load(path).opset_import[0].version == 17


def multiply_adds_of_b0(size):
    """MiT-B0 and the library's head from the paper's table, layer by layer."""
    channels, reductions, heads_width, classes = (32, 64, 160, 256), (8, 4, 2, 1), 256, 19
    total, previous = 0, 3
    quarter = (size.height // 4) * (size.width // 4)
    for stage, (width, reduction) in enumerate(zip(channels, reductions, strict=True)):
        tokens = quarter // 4**stage
        keys = tokens // reduction**2
        kernel = 7 if stage == 0 else 3
        total += tokens * width * previous * kernel**2
        block = 2 * tokens * width**2 + 2 * keys * width**2  # queries and output, keys and values
        block += 2 * tokens * keys * width  # scores, and their product with the values
        block += keys * width**2 * reduction**2 if reduction > 1 else 0
        block += 2 * tokens * width * 4 * width + tokens * 4 * width * 9
        total += 2 * block + tokens * width * heads_width
        previous = width
    return total + quarter * (4 * heads_width * heads_width + heads_width * classes)


@pytest.mark.parametrize("size", [Resolution(512, 512), Resolution(3840, 2160), Resolution(100, 70)])
def test_the_largest_score_matrix_is_that_of_stage_1(size):
    """Every stage of B0: its first convolution rounds the grid up, the one that reduces the keys rounds down."""
    scores, rows, columns = [], size.height, size.width
    for heads, stride, reduction in ((1, 4, 8), (2, 2, 4), (5, 2, 2), (8, 2, 1)):
        rows, columns = -(-rows // stride), -(-columns // stride)
        scores.append(4 * heads * rows * columns * (rows // reduction) * (columns // reduction))
    assert score_bytes(size) == max(scores)


def test_scores_of_4k():
    assert score_bytes(Resolution(3840, 2160)) / 2**30 == pytest.approx(15.6, abs=0.2)


@pytest.mark.parametrize(
    ("backend", "target"),
    [("onnxruntime", "onnxruntime"), ("onnxruntime-cuda", "onnxruntime"), ("openvino", "openvino")],
)
def test_targets_of_backends(backend, target):
    assert target_of(backend) == target


def labels_of(model):
    prepared = model.prepare()
    return model.finish(model.infer(prepared), prepared).labels


def test_pytorch_gives_the_same_labels_and_holds_its_scores(checkpoint, exported, picture):
    path, contract = exported
    model = open_eager(EagerRequest(str(checkpoint), contract.to_json(), autocast=False), picture)
    frame = picture.for_model(contract)
    assert label_agreement(labels_of(model), load(path, backend="onnxruntime")(frame).labels) > 0.999
    with torch.inference_mode():
        answer = library_model(checkpoint, attention="eager")(
            pixel_values=torch.zeros(1, 3, 64, 96), output_attentions=True
        )
    assert answer.attentions[0].shape == (1, 1, 16 * 24, 2 * 3)


@pytest.mark.slow
def test_pytorchs_memory_is_that_of_its_own_process(checkpoint, exported, picture, tmp_path):
    np.save(tmp_path / "frame.npy", picture.frame_bgr)
    request = EagerRequest(str(checkpoint), exported[1].to_json(), autocast=True)
    assert 1e8 < eager_peak_bytes(request, tmp_path / "frame.npy") < 2e9
