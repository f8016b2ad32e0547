"""Networks of images with other than three channels: read, exported, checked, and fed as far as frames go."""

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from sfpp.export import export_onnx
from sfpp.export.checkpoints import read_checkpoint
from sfpp.export.demo import demo_frame
from sfpp.export.to_onnx import learned_model
from sfpp.runtime import load_segmenter
from sfpp.runtime.cli.run import main
from sfpp.runtime.errors import CheckpointError, UsageError
from sfpp.runtime.images import place_frame
from sfpp.runtime.pixels.pictures import read_image
from sfpp.runtime.segmentation import PreparedFrames

transformers = pytest.importorskip("transformers", reason="the Transformers library is not installed")
RES = "130x97"  # width x height


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return where the library has saved a network of so many channels."""

    def saved(channels):
        torch.manual_seed(7)
        sizes = {"hidden_sizes": [8, 12, 20, 24], "depths": [1, 1, 1, 1], "num_attention_heads": [2, 3, 4, 6]}
        config = transformers.SegformerConfig(
            num_channels=channels, decoder_hidden_size=16, id2label=dict(enumerate("abcde")), **sizes
        )
        path = tmp_path_factory.mktemp("network")
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(path)
        return path

    return saved


def exported(weights, channels, tmp_path, **options):
    numbers = {"mean": tuple(range(90, 90 + channels)), "std": tuple(range(50, 50 + channels))}
    return export_onnx(weights, tmp_path / "model.onnx", res=RES, input="float32", **numbers, **options)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_network_is_the_librarys(folder, channels):
    path = folder(channels)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.channels, checkpoint.config.encoder.in_channels) == (channels, channels)
    image = torch.randn(1, channels, 97, 130, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = transformers.SegformerForSemanticSegmentation.from_pretrained(path)(pixel_values=image).logits
        torch.testing.assert_close(learned_model(checkpoint)(image), expected, rtol=1e-4, atol=1e-5)


def test_a_config_of_other_channels_does_not_belong_to_the_weights(folder):
    path = folder(4)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"num_channels": 4', '"num_channels": 3'))
    with pytest.raises(CheckpointError, match="num_channels gives 3, the weights 4"):
        read_checkpoint(path)


def test_one_channel_is_fed_the_grey_of_frames(folder, tmp_path):
    path = folder(1)
    report = exported(path, 1, tmp_path, batch=2)
    spec = report.contract.input
    assert (spec.shape, spec.mean, spec.std) == ((2, 1, 97, 130), (90.0,), (50.0,))
    assert not report.parity.failures()
    frame_bgr = cv2.resize(read_image(demo_frame()), (130, 97))
    grey = torch.from_numpy(cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2GRAY)).float()[None, None]
    with torch.inference_mode():
        logits = learned_model(read_checkpoint(path))((grey - 90) / 50)
    expected = torch.nn.functional.interpolate(logits, (97, 130), mode="bilinear").argmax(1)[0].numpy()
    with load_segmenter(report.path, backend="onnxruntime") as segmenter:
        assert segmenter.self_test.outcome == "passed"
        assert np.mean(segmenter(frame_bgr).labels == expected) > 0.999
    assert len(np.unique(expected)) > 1


def test_four_channels_are_fed_by_the_program(folder, tmp_path, capsys):
    path = folder(4)
    report = exported(path, 4, tmp_path)
    assert report.contract.self_test is None
    assert not report.parity.failures()
    image = np.random.default_rng(5).normal(size=(1, 4, 97, 130)).astype(np.float32)
    with torch.inference_mode():
        expected = learned_model(read_checkpoint(path))(torch.from_numpy(image))
    with load_segmenter(report.path, backend="onnxruntime") as segmenter:
        prepared = PreparedFrames(image, (place_frame((97, 130), segmenter.contract.input),))
        outputs = segmenter.infer(prepared)
        np.testing.assert_allclose(outputs["logits"], expected.numpy(), atol=1e-4)
        labels = segmenter.finish(outputs, prepared).labels
    upsampled = torch.nn.functional.interpolate(expected, (97, 130), mode="bilinear").argmax(1)[0].numpy()
    assert np.mean(labels == upsampled) > 0.999
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 4, 97, 130]
    assert main([str(report.path), str(demo_frame()), "-o", str(tmp_path / "out.png")]) != 0
    assert "the model takes 4 channels, and frames have the three of a color" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "fed"), [(1, "the grey of frames by sfpp-run"), (4, "by your own program")])
def test_bytes_of_frames_are_for_three_channels(folder, tmp_path, channels, fed):
    with pytest.raises(
        UsageError, match=f"takes {channels} channels, .* give --input float32, .* {channels}x97x130 .*{fed}"
    ):
        export_onnx(folder(channels), tmp_path / "model.onnx", res=RES, mean=(0,) * channels, std=(1,) * channels)
    assert not list(tmp_path.iterdir())


def test_nothing_is_known_of_other_channels_values(folder, tmp_path):
    with pytest.raises(CheckpointError, match="takes 4 channels, and nothing says how to normalize them: give --mean"):
        export_onnx(folder(4), tmp_path / "model.onnx", res=RES, input="float32")
