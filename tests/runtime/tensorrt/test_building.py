from pathlib import Path

import pytest

from sfpp.runtime.errors import UsageError
from sfpp.runtime.tensorrt.building import EngineSettings, bytes_from


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5 GB", 1_500_000_000), ("4096", 4096), ("1kib", 1024)],
)
def test_amounts_of_memory(text, expected):
    assert bytes_from(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "2 parsecs", "-1GiB", "1,5GB", "9" * 400])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(UsageError, match="expected for example 2GiB"):
        bytes_from(text)


def test_devices_are_named_by_compute_capability():
    assert EngineSettings().devices is None
    assert EngineSettings(devices="sm86, SM120").devices == ("sm86", "sm120")
    assert EngineSettings(devices=("current",)).devices == ("current",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": ("rtx4090",)}, "no device 'rtx4090'; expected a compute capability such as sm86"),
        ({"devices": ("sm86", "sm86")}, "name each once"),
        ({"devices": ()}, "at least one"),
        ({"devices": ("sm86", "current")}, "current stands for this machine's card alone"),
        ({"workspace_bytes": 0}, "a workspace of 0 bytes holds nothing"),
        ({"dla": -1}, "numbered from 0"),
        ({"hardware_compatible": True, "same_capability": True}, "give one of them"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(UsageError, match=message):
        EngineSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"timing_cache": Path("times")}, "timing cache"),
        ({"dla": 0}, "deep learning accelerator"),
        ({"version_compatible": True}, "version-compatible engines"),
        ({"hardware_compatible": True}, "compatible hardware"),
        ({"same_capability": True}, "compatible hardware"),
    ],
)
def test_what_tensorrt_rtx_does_not_have(settings, word):
    EngineSettings(**settings).check_for("tensorrt")
    with pytest.raises(UsageError, match=f"TensorRT-RTX has no .*{word}"):
        EngineSettings(**settings).check_for("tensorrt-rtx")


def test_tensorrt_builds_for_its_own_card_only():
    EngineSettings(devices=("current",)).check_for("tensorrt")
    EngineSettings(devices=("sm86",)).check_for("tensorrt-rtx")
    with pytest.raises(UsageError, match="not for sm86; build there, or take --backend tensorrt-rtx"):
        EngineSettings(devices=("sm86",)).check_for("tensorrt")
