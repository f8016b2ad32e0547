"""Makes a checkpoint with a library itself, and the library's own labels of some pictures. Needs nothing of sfpp.

    python makers.py JOB

JOB is JSON with ``maker`` (a function of this file), ``state`` (a safetensors file in the library's names),
``pictures``, ``out`` (a folder), ``truth`` (a folder of images and labels to train on) and ``settings``, which are the
maker's other arguments. ``out`` then has the weights (a file or a folder), a PNG of labels for each picture, and
``made.json``: the weights' name and the library's version.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# The libraries wish to read back what they wrote, objects among it.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# A torchvision that was built for another torch lacks its own operators, which nothing here uses.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
WIDTHS = {"embed_dims": 32, "num_heads": [1, 2, 5, 8]}
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def mmsegmentation(
    job: dict[str, Any],
    *,
    preprocessor: dict[str, Any],
    resize: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    hooks: list[dict[str, Any]] | None = None,
    rate: float = 1e-6,
) -> tuple[str, str]:
    """Let mmengine's Runner train for two steps, and MMSegmentation read what it wrote."""
    # mmcv-lite lacks compiled operators, which some of the networks import that MMSegmentation registers.
    operators = types.ModuleType("mmcv.ops")
    operators.__dict__.update(dict.fromkeys(("CrissCrossAttention", "PSAMask", "point_sample", "sigmoid_focal_loss")))
    sys.modules["mmcv.ops"] = operators
    import mmseg
    from mmengine import Config
    from mmengine.runner import Runner
    from mmseg.apis import inference_model, init_model

    out, is_binary = Path(job["out"]), (head or {}).get("out_channels") == 1 or (head or {}).get("num_classes") == 1
    images, labels = _training_set(out / "set", Path(job["truth"]), is_binary)
    scaled = {k: tuple(v) if isinstance(v, list) else v for k, v in (resize or {}).items()}
    pipeline = [{"type": "LoadImageFromFile"}, *([{"type": "Resize", **scaled}] if resize else [])]
    test_pipeline = [*pipeline, {"type": "PackSegInputs"}]
    names = ["other", "road"] if is_binary else CLASSES
    palette = [[20 * index, 255 - 20 * index, 7 * index] for index in range(len(names))]
    data = {
        "type": "BaseSegDataset",
        "data_prefix": {"img_path": str(images), "seg_map_path": str(labels)},
        "metainfo": {"classes": names, "palette": palette},
    }
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": is_binary, "loss_weight": 1.0}
    config = Config(
        {
            "default_scope": "mmseg",
            "work_dir": str(out / "work"),
            "log_level": "ERROR",
            "model": {
                "type": "EncoderDecoder",
                "data_preprocessor": {"type": "SegDataPreProcessor", "size": (360, 480), **preprocessor},
                "backbone": {"type": "MixVisionTransformer", "num_layers": [2, 2, 2, 2], **WIDTHS},
                "decode_head": {
                    **{"type": "SegformerHead", "in_channels": [32, 64, 160, 256], "in_index": [0, 1, 2, 3]},
                    **{"channels": 256, "num_classes": 11, "norm_cfg": {"type": "BN"}, "loss_decode": loss},
                    **(head or {}),
                },
                "train_cfg": {},
                "test_cfg": {"mode": "whole"},
            },
            "train_dataloader": {
                "batch_size": 2,
                "num_workers": 0,
                "sampler": {"type": "InfiniteSampler", "shuffle": False},
                "dataset": {
                    **data,
                    "pipeline": [
                        {"type": "LoadImageFromFile"},
                        {"type": "LoadAnnotations"},
                        {"type": "PackSegInputs"},
                    ],
                },
            },
            "test_pipeline": test_pipeline,
            "test_dataloader": {"batch_size": 1, "dataset": {**data, "pipeline": test_pipeline}},
            "test_evaluator": {"type": "IoUMetric"},
            "test_cfg": {"type": "TestLoop"},
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 2},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": rate}},
            "param_scheduler": [{"type": "PolyLR", "power": 1.0, "begin": 0, "end": 9, "by_epoch": False}],
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False},
                "logger": {"type": "LoggerHook", "interval": 1},
            },
            "custom_hooks": hooks or [],
        }
    )
    # Training begins with new weights unless it is told of a file.
    config.load_from = str(out / "begin.pth")
    torch.save({"state_dict": load_file(job["state"])}, config.load_from)
    runner = Runner.from_cfg(config)
    _load(runner.model, job)
    runner.train()
    (out / "work/iter_2.pth").rename(out / "iter_2.pth")
    model = init_model(config, str(out / "iter_2.pth"), device="cpu")
    for picture, name in _pictures(job):
        _save(out / name, inference_model(model, str(picture)).pred_sem_seg.data[0])
    import mmengine

    return "iter_2.pth", f"MMSegmentation {mmseg.__version__}, MMEngine {mmengine.__version__}"


def transformers(
    job: dict[str, Any],
    *,
    processor: dict[str, Any],
    fast: bool = False,
    edits: dict[str, Any] | None = None,
    nested: bool = False,
    backend: str | None = None,
    outputs: int = 11,
) -> tuple[str, str]:
    """Let Transformers write network and image processor into a folder, and read both from there.

    Args:
        job: what to do.
        processor: arguments of the image processor; an empty list means none.
        fast: Transformers 4's kind for tensors.
        edits: what older versions wrote in other words; None removes a key.
        nested: the image processor in ``processor_config.json``, as Transformers 5 writes it for processors of several
            kinds of input.
        backend: Transformers 5's.
        outputs: how many channels the network has.
    """
    import transformers as library

    folder = Path(job["out"]) / "weights"
    model = _segformer(job, outputs)
    model.save_pretrained(folder)
    kind = library.SegformerImageProcessorFast if fast else library.SegformerImageProcessor
    kind(**processor).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    content = {
        k: v for k, v in (json.loads(file.read_text()) | (edits or {})).items() if edits is None or v is not None
    }
    file.write_text(json.dumps(content))
    if nested:
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": content}))
        file.unlink()
    read = library.AutoImageProcessor.from_pretrained(folder, **({"backend": backend} if backend else {}))
    model = library.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    for picture, name in _pictures(job):
        image = _rgb(picture)
        with torch.inference_mode():
            answer = model(**read(images=image, return_tensors="pt"))
        if outputs == 1:
            _save(Path(job["out"]) / name, _upsampled(answer.logits, image)[0, 0].sigmoid() > 0.5)
            continue
        _save(Path(job["out"]) / name, read.post_process_semantic_segmentation(answer, [image.shape[:2]])[0])
    return "weights", f"Transformers {library.__version__}, {type(read).__name__}"


def smp(job: dict[str, Any], *, as_folder: bool, outputs: int = 11) -> tuple[str, str]:
    """Let segmentation_models_pytorch write its network, and label pictures of a size that it takes."""
    import segmentation_models_pytorch as library
    from segmentation_models_pytorch.encoders import preprocess_input

    out = Path(job["out"])
    model = library.Segformer("mit_b0", encoder_weights=None, classes=outputs)
    _load(model, job)
    name = "weights" if as_folder else "weights.pth"
    if as_folder:
        model.save_pretrained(out / name)
        model = library.from_pretrained(out / name).eval()
    else:
        torch.save(model.state_dict(), out / name)
    for picture, labels in _pictures(job):
        # Its function that says these numbers asks a server for them.
        image = preprocess_input(
            _rgb(picture), [each / 255 for each in MEAN], [each / 255 for each in STD], "RGB", [0, 1]
        )
        logits = model.predict(torch.from_numpy(image).float().permute(2, 0, 1)[None])
        _save(out / labels, logits[0, 0].sigmoid() > 0.5 if outputs == 1 else logits[0].argmax(0))
    return name, f"segmentation_models_pytorch {library.__version__}"


def lightning(job: dict[str, Any], *, average: bool = False) -> tuple[str, str]:
    """Let Lightning train Transformers' network for two steps, with losses and metrics in the module as is usual."""
    import lightning as library
    import torchmetrics
    from lightning.pytorch.callbacks import EMAWeightAveraging

    class Module(library.LightningModule):
        def __init__(self, options: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = _segformer(job, 11)
            self.criterion = torch.nn.CrossEntropyLoss(torch.linspace(0.5, 1.5, 11), ignore_index=255)
            self.val_iou = torchmetrics.JaccardIndex(task="multiclass", num_classes=11)
            self.val_iou.persistent(True)

        def forward(self, image: Any) -> Any:
            return self.net(image).logits

        def training_step(self, batch: Any, index: int) -> Any:
            self.log("train_loss", loss := self.criterion(_upsampled(self(batch[0]), batch[1][0]), batch[1]))
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=2e-4 if average else 1e-6)

    out = Path(job["out"])
    images, labels = _training_set(out / "set", Path(job["truth"]), False)
    pairs = [
        (_normalized(_rgb(image))[0], torch.from_numpy(cv2.imread(str(labels / f"{image.stem}.png"), -1)).long())
        for image in sorted(images.iterdir())
    ]
    options = argparse.Namespace(root=out, rate=1e-6)
    trainer = library.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=out,
        callbacks=[EMAWeightAveraging(decay=0.5)] if average else [],
    )
    trainer.fit(Module(options), torch.utils.data.DataLoader(pairs, batch_size=2))
    saved = next(out.glob("checkpoints/*.ckpt"))
    saved.rename(out / "last.ckpt")
    module = Module.load_from_checkpoint(out / "last.ckpt", weights_only=False).eval()
    for picture, name in _pictures(job):
        image = _rgb(picture)
        with torch.inference_mode():
            _save(out / name, _upsampled(module(_normalized(image)), image)[0].argmax(0))
    return "last.ckpt", f"Lightning {library.__version__}"


def tao(job: dict[str, Any]) -> tuple[str, str]:
    """Write names as TAO's newer networks have them; Transformers' network answers, since TAO's cannot be installed.

    The state is Transformers'; ``tao`` in the job is a file with the same network in TAO's names.
    """
    out, model = Path(job["out"]), _segformer(job, 11)
    content = {"state_dict": load_file(job["tao"]), "epoch": 1, "global_step": 1, "pytorch-lightning_version": "2.3"}
    torch.save(content, out / "weights.pth")
    for picture, name in _pictures(job):
        image = _rgb(picture)
        with torch.inference_mode():
            _save(out / name, _upsampled(model(_normalized(image)).logits, image)[0].argmax(0))
    return "weights.pth", "TAO's names; Transformers' network"


def _segformer(job: dict[str, Any], outputs: int) -> Any:
    """Return Transformers' network with the state, read as the library reads it."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    folder = Path(job["out"]) / "given"
    names = {"id2label": dict(enumerate(CLASSES))} if outputs == 11 else {}
    SegformerConfig(num_labels=outputs, **names).save_pretrained(folder)
    save_file(load_file(job["state"]), folder / "model.safetensors", metadata={"format": "pt"})
    model, report = SegformerForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    _check(report["missing_keys"], report["unexpected_keys"])
    shutil.rmtree(folder)
    return model.eval()


def _load(model: Any, job: dict[str, Any]) -> None:
    found = model.load_state_dict(load_file(job["state"]), strict=False)
    _check(found.missing_keys, found.unexpected_keys)
    model.eval()


def _check(missing: Any, unexpected: Any) -> None:
    assert all(each.endswith("num_batches_tracked") for each in missing), sorted(missing)
    assert not unexpected, sorted(unexpected)


def _training_set(folder: Path, truth: Path, is_binary: bool) -> tuple[Path, Path]:
    """Copy four frames and their label images; of two classes where one output is trained: road and the others."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for image in sorted((truth / "images").iterdir())[:4]:
        shutil.copy(image, images)
        values = cv2.imread(str(truth / "labels" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED)
        values = (values == 3).astype(np.uint8) if is_binary else np.where(values == 11, 255, values)
        cv2.imwrite(str(labels / f"{image.stem}.png"), values)
    return images, labels


def _pictures(job: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for each in map(Path, job["pictures"]):
        yield each, f"{each.stem}.png"


def _rgb(path: Path) -> Any:
    return np.array(Image.open(path).convert("RGB"))


def _normalized(image: Any) -> Any:
    scaled = (image.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]


def _upsampled(logits: Any, image: Any) -> Any:
    return torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)


def _save(path: Path, labels: Any) -> None:
    cv2.imwrite(str(path), np.asarray(labels).astype(np.uint8))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    Path(asked["out"]).mkdir(parents=True, exist_ok=True)
    weights, library = globals()[asked["maker"]](asked, **asked["settings"])
    (Path(asked["out"]) / "made.json").write_text(json.dumps({"weights": weights, "library": library}))
