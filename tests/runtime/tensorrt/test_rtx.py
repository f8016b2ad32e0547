"""What is different with TensorRT-RTX: engines for named cards, and kernels that are compiled when first run."""

import importlib
import json

import numpy as np
import pytest

from sfpp.runtime.backends import BackendOptions, open_backend
from sfpp.runtime.contract import METADATA_KEY
from sfpp.runtime.errors import BackendError, UsageError
from sfpp.runtime.tensorrt import EngineSettings, build_engine
from tests.runtime.backends.graphs import write_sums
from tests.runtime.video.clips import CONTRACT

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def model(tmp_path):
    return write_sums(tmp_path / "model.onnx", metadata={METADATA_KEY: CONTRACT.to_json()})


@pytest.fixture
def rtx(fakes, monkeypatch):
    monkeypatch.setenv("FAKE_CARD", "NVIDIA GeForce RTX 3080:8.6")
    return importlib.import_module("tensorrt_rtx")


def engine_for(model, *devices):
    return build_engine(model, backend="tensorrt-rtx", settings=EngineSettings(devices=devices or None)).path


def run(engine, **options):
    with_options = BackendOptions(**options)
    backend = open_backend(engine, options=with_options)[0]
    answers = [backend.run({"x": X + step})["y"] for step in range(3)]
    for step, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, 2 * (X + step))
    backend.close()


@pytest.mark.parametrize(
    ("devices", "built_for", "recorded"),
    [
        ((), [], ()),
        (("sm86", "sm120"), ["SM86", "SM120"], ("sm86", "sm120")),
        (("current",), ["CURRENT"], ("sm86",)),
    ],
)
def test_devices_reach_the_builder_and_the_record(rtx, model, devices, built_for, recorded):
    engine = engine_for(model, *devices)
    assert json.loads(engine.read_bytes().split(b"\n")[1])["devices"] == built_for
    record = json.loads(engine.with_suffix(".json").read_text())["engine"]
    assert tuple(record["devices"]) == recorded
    assert record["card"] == ("NVIDIA GeForce RTX 3080" if devices == ("current",) else "")
    run(engine)


def test_a_device_that_it_does_not_know(rtx, model):
    with pytest.raises(UsageError, match=r"does not build for sm87; it does for sm75, sm86, sm120"):
        engine_for(model, "sm87")


def test_the_current_card_must_be_there(rtx, model, monkeypatch):
    monkeypatch.setenv("FAKE_CARDS", "0")
    with pytest.raises(BackendError, match="refuses the device current: there is no card here; name one, such as sm86"):
        engine_for(model, "current")


@pytest.mark.parametrize(
    ("card", "devices", "fits"),
    [
        ("RTX 5090:12.0", (), True),
        ("RTX 2080:7.5", (), False),
        ("RTX 5090:12.0", ("sm86",), False),
        ("RTX 3080:8.6", ("sm86", "sm120"), True),
    ],
)
def test_an_engine_runs_on_the_cards_it_was_built_for(rtx, model, monkeypatch, card, devices, fits):
    engine = engine_for(model, *devices)
    monkeypatch.setenv("FAKE_CARD", card)
    if fits:
        return run(engine)
    capability = "sm" + card.partition(":")[2].replace(".", "")
    with pytest.raises(BackendError, match=f"and this card is {capability} .* --device {capability}$"):
        run(engine)
    return None


def test_an_engine_belongs_to_one_version(rtx, model, monkeypatch):
    engine = engine_for(model)
    monkeypatch.setattr(rtx, "__version__", "1.8.0.1")
    with pytest.raises(BackendError, match=r"with TensorRT-RTX 1\.7\.1\.116, and this machine has 1\.8\.0\.1"):
        run(engine)


def test_it_records_graphs_itself(rtx, fakes, model):
    run(engine_for(model))
    assert "cudaStreamBeginCapture" not in {call[0] for call in fakes.CALLS}


def test_compiled_kernels_are_kept_for_the_next_time(rtx, model, tmp_path):
    engine = engine_for(model)
    run(engine, cache=False)
    run(engine, cache=False)
    assert len(rtx.COMPILED) == 2
    run(engine)
    run(engine)
    assert len(rtx.COMPILED) == 3
    (kept,) = (tmp_path / "cache").rglob("kernels.bin")
    kept.write_bytes(b"another card's")
    run(engine)
    assert len(rtx.COMPILED) == 4
    assert kept.read_bytes() == b"kernels"


def test_the_engine_that_is_built_on_first_use_is_for_this_card(rtx, model):
    backend, _ = open_backend(model, backend="tensorrt-rtx")
    np.testing.assert_array_equal(backend.run({"x": X})["y"], 2 * X)
    record = json.loads(backend.metadata[METADATA_KEY])["engine"]
    assert (record["library"], record["devices"]) == ("tensorrt-rtx", ["sm86"])
