"""Which of the networks in a file is meant: the plain one, or the one that is asked for.

Training tools write averaged copies (EMA, a teacher) beside the weights, as a dictionary of their own or under a prefix
in the same one, and what only training needs: losses, class weights, metrics. A network is named by what stands before
its keys in the file, such as ``state_dict.ema_model``; wrappers that say nothing (``module.``) do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfpp.export.checkpoints.pickled import RESAVE, is_module, items_of
from sfpp.export.checkpoints.storage import StoredWeights
from sfpp.export.checkpoints.styles import Found, Spelling, find_networks, without_head
from sfpp.runtime.errors import CheckpointError

_SHOWN = 10
_DEPTH = 3  # of dictionaries within dictionaries
_LONGEST_KEY = 1000  # a pickle may hold a module that holds itself
# In the order in which they are preferred; an empty name is a file that is a state dictionary itself.
_PLAIN_NAMES = (
    *("", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "segmentor", "student"),
    *("weights", "params"),
)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|averaged?|average|shadow|teacher|momentum)([._]|$)", re.IGNORECASE)
# Distributed training, torch.compile, FSDP, activation checkpointing and DeepSpeed wrap modules in modules.
_WRAPPING = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
# At the top of a network: what losses, metrics, normalization and averaging keep there.
_BESIDE = re.compile(
    r"(\w*_)?(criteri(on|a)\w*|loss(es)?(_?\w+)?|metrics?(_?\w+)?)\."
    r"|(\w*_)?(m?iou|jaccard|dice|acc|accuracy|f1|f1_?score|precision|recall|conf_?mat(rix)?|confusion_matrix)"
    r"(_(train|val|valid|test))?\."
    r"|((\w*_)?(class_?weights?|pos_weight|loss_weights?)|steps?|n_averaged|num_updates|decay|initted)$"
    r"|((pixel|image|img)_)?(mean|std)$|\w*(norm|normalize|normalizer|preprocess(or|ing)?)\.(mean|std)$"
)


@dataclass(frozen=True)
class Selected:
    """One network of a file: its tensors by their keys, from the network's own on, and how these are spelled.

    ``key`` is the network's name, empty where the file holds no other; ``notes`` say what was left aside.
    """

    key: str
    spelling: Spelling
    tensors: dict[str, Tensor] = field(repr=False)
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Stored:
    """A tensor and what stands before the keys of the dictionary, or whole module, that it is in."""

    tensor: Tensor
    home: str


@dataclass(frozen=True)
class _Network:
    name: str
    found: Found
    keys: tuple[str, ...]
    tensors: dict[str, Tensor]


def select_network(stored: StoredWeights, weights_key: str | None, *, otherwise: str = "") -> Selected:
    """Return the network that is meant.

    Args:
        stored: a file's content.
        weights_key: a network's name or its last or first part; None takes the plain one.
        otherwise: what is taken instead of the plain one where the file has it.

    Raises:
        CheckpointError: no network that sfpp knows, none of that name, or several that might be meant.
    """
    name, flat = str(stored.path), _flat(stored)
    if any(re.search(r"\.(lora_\w+|base_layer)\.", key) for key in flat):
        raise CheckpointError(
            f"{name} holds adapters (LoRA, of PEFT) that are not merged into the network's weights. In the program "
            "that made it: model.merge_and_unload().save_pretrained('merged'); then give the folder merged"
        )
    networks = _networks(flat)
    if not networks:
        raise CheckpointError(_no_network(flat, name))
    if weights_key is None and any(each.name == otherwise for each in networks):
        weights_key = otherwise
    chosen = _plain(networks, name) if weights_key is None else _named(networks, weights_key, name)
    others = [each for each in networks if each is not chosen and not _equal(each.tensors, chosen.tensors)]
    notes = _choice_notes(chosen, others, stored)
    tensors = {key: tensor for key, tensor in chosen.tensors.items() if not _BESIDE.match(key)}
    used = {key for each in networks for key in each.keys}
    home = flat[chosen.found.keys[0]].home
    beside = {
        key.removeprefix(home): each.tensor for key, each in flat.items() if each.home == home and key not in used
    }
    beside |= {key: tensor for key, tensor in chosen.tensors.items() if _BESIDE.match(key)}
    notes += _beside_notes(beside)
    return Selected(chosen.name if others else "", chosen.found.spelling, tensors, tuple(notes))


def listing(items: Sequence[str]) -> str:
    """Return the first of many items in a line, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _flat(stored: StoredWeights) -> dict[str, _Stored]:
    """Return every tensor of a file by the path to it, without wrappers where none is needed to tell keys apart."""
    flat = dict(_walk(stored.content))
    if not flat:
        raise CheckpointError(_no_tensors(stored))
    short = {key: _WRAPPING.sub("", key) for key in flat}
    if len(set(short.values())) < len(flat):
        return flat
    return {short[key]: _Stored(each.tensor, _WRAPPING.sub("", each.home)) for key, each in flat.items()}


def _walk(value: object, prefix: str = "", home: str = "", depth: int = 0) -> Iterator[tuple[str, _Stored]]:
    for key, member in items_of(value):
        path = f"{prefix}{key}"
        if isinstance(member, Tensor):
            yield path, _Stored(member.detach(), home)
        elif depth == 0 and key.startswith("optim"):
            continue  # its averages have the weights' own keys
        elif is_module(value):
            if len(path) < _LONGEST_KEY:
                yield from _walk(member, f"{path}.", home, depth)
        elif depth < _DEPTH:
            yield from _walk(member, f"{path}.", f"{path}.", depth + 1)


def _networks(flat: Mapping[str, _Stored]) -> list[_Network]:
    whole = [found for found in find_networks(flat) if found.has_head]
    roots = {found.root for found in whole}
    networks = []
    for found in whole:
        homes = {flat[key].home for key in found.keys}
        inner = tuple(root for root in roots if root != found.root and root.startswith(found.root))
        keys = tuple(
            key
            for key, each in flat.items()
            if each.home in homes and key.startswith(found.root) and not key.startswith(inner)
        )
        tensors = {key.removeprefix(found.root): flat[key].tensor for key in keys}
        networks.append(_Network(found.root.rstrip("."), found, keys, tensors))
    return [each for network in networks for each in _with_mmcv_copy(network)]


def _with_mmcv_copy(network: _Network) -> list[_Network]:
    """Return the network, and the averaged one that mmcv keeps in it: ``ema_`` and the key with _ for each dot."""
    copies = {key: f"ema_{key.replace('.', '_')}" for key in network.tensors}
    present = {key: copy for key, copy in copies.items() if copy in network.tensors}
    if not present:
        return [network]
    plain = {key: tensor for key, tensor in network.tensors.items() if key not in present.values()}
    averaged = {key: network.tensors[present[key]] if key in present else tensor for key, tensor in plain.items()}
    name = ".".join(filter(None, (network.name, "ema_")))
    return [
        _Network(network.name, network.found, network.keys, plain),
        _Network(name, network.found, network.keys, averaged),
    ]


def _plain(networks: Sequence[_Network], name: str) -> _Network:
    """Return the network that is no average and whose name comes first among the usual ones."""
    plain = [each for each in networks if not _AVERAGED.search(each.name)] or list(networks)
    best = min(map(_rank, plain))
    first = [each for each in plain if _rank(each) == best]
    if any(not _equal(each.tensors, first[0].tensors) for each in first[1:]):
        raise CheckpointError(
            f"{name} holds several networks, and nothing tells which one is meant: choose one with --weights-key: "
            f"{_names(first)}"
        )
    return first[0]


def _rank(network: _Network) -> tuple[int, ...]:
    parts = network.name.split(".")
    return tuple(_PLAIN_NAMES.index(part) if part in _PLAIN_NAMES else len(_PLAIN_NAMES) for part in parts)


def _named(networks: Sequence[_Network], weights_key: str, name: str) -> _Network:
    wanted = _WRAPPING.sub("", f"{weights_key.strip('.')}.").rstrip(".")
    exact = [each for each in networks if each.name == wanted]
    close = [each for each in networks if f".{each.name}".endswith(f".{wanted}") or each.name.startswith(f"{wanted}.")]
    found = exact or close
    if len(found) == 1:
        return found[0]
    if len(networks) == 1:
        raise CheckpointError(
            f"{name} has no weights under {weights_key!r} and one network only: leave --weights-key out"
        )
    raise CheckpointError(
        f"{name} has {len(found) or 'no'} networks under {weights_key!r}, expected one of {_names(networks)}"
    )


def _names(networks: Sequence[_Network]) -> str:
    return ", ".join(repr(each.name) for each in networks)


def _choice_notes(chosen: _Network, others: Sequence[_Network], stored: StoredWeights) -> list[str]:
    content = stored.content
    notes = []
    if any(is_module(member) for member in (content, *(member for _, member in items_of(content)))):
        notes.append("the file holds a whole pickled model: its weights were read, and its code was not looked at")
    if not others:
        if _AVERAGED.search(chosen.name):
            notes.append(
                f"the weights are those under {chosen.name!r}, averaged over training (EMA): there are no others"
            )
        return notes
    top = {key for key, _ in items_of(content)}
    exchanged = {
        "mmengine's EMAHook": "mmengine_version" in stored.metadata and "ema_state_dict" in top,
        "Lightning's WeightAveraging": {"current_model_state", "averaging_state"} <= top,
    }
    tool = next((tool for tool, is_so in exchanged.items() if is_so), None)
    notes.append(
        f"the weights are those under {chosen.name!r}; the file also holds "
        f"{', '.join(f'{each.name!r}{_meaning(each, tool)}' for each in others)}: --weights-key chooses"
    )
    if tool is not None:
        kept = "ema_state_dict" if "ema_state_dict" in top else "current_model_state"
        notes.append(
            f"{tool} exchanges the two when it saves: 'state_dict' holds the averaged weights (EMA), which it "
            f"evaluates and deploys, and {kept!r} those that training goes on with"
        )
    elif any(each.name.endswith("ema_") for each in (chosen, *others)):
        notes.append(
            "mmcv's EMAHook exchanges the two around each evaluation: which of them is the average depends on whether "
            "it ran before or after the file was saved"
        )
    return notes


def _meaning(network: _Network, tool: str | None) -> str:
    is_average = _AVERAGED.search(network.name) and tool is None and not network.name.endswith("ema_")
    return " (averaged)" if is_average else ""


def _beside_notes(beside: Mapping[str, Tensor]) -> list[str]:
    """Say what was left out, and what a training's own normalization was where that was kept beside the network."""
    told = [key for key in beside if not re.fullmatch(r"(.*\.)?(num_batches_tracked|steps?|n_averaged)", key)]
    notes = [f"left out, since they are not the network's: {listing(told)}"] if told else []
    for key, tensor in beside.items():
        if re.search(r"(mean|std)$", key) and tensor.is_floating_point() and 0 < tensor.numel() <= 4:
            values = " ".join(f"{value:g}" for value in tensor.flatten().tolist())
            notes.append(f"{key} is {values}: compare with the mean and std that are used, and give --mean or --std")
    return notes


def _equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)


def _same(left: Tensor, right: Tensor) -> bool:
    def kind(tensor: Tensor) -> tuple[object, ...]:
        return tensor.shape, tensor.dtype, tensor.layout, tensor.is_meta

    is_plain = kind(left) == kind(right) and left.layout == torch.strided and not left.is_meta
    return is_plain and bool(torch.equal(left, right))


def _no_tensors(stored: StoredWeights) -> str:
    content, name = stored.content, stored.path
    if not isinstance(content, Mapping) and not is_module(content):
        return f"{name} holds a {type(content).__name__}, expected a state dictionary. {RESAVE}"
    members = dict(items_of(content))
    inner = next((members[key] for key in _PLAIN_NAMES if isinstance(members.get(key), Mapping)), content)
    found = ", ".join([key for key, _ in items_of(inner)][:10]) or "nothing"
    return f"{name} has no tensors where a state dictionary should be (found: {found}). {RESAVE}"


def _no_network(flat: Mapping[str, _Stored], name: str) -> str:
    if encoders := find_networks(flat):
        home = flat[encoders[0].keys[0]].home
        keys = [key.removeprefix(home) for key in flat if key.startswith(home)]
        return without_head(find_networks(keys)[0], keys, name)
    homes = dict.fromkeys(each.home for each in flat.values())
    home = min(homes, key=lambda each: _PLAIN_NAMES.index(each.rstrip(".")) if each.rstrip(".") in _PLAIN_NAMES else 99)
    keys = sorted(key.removeprefix(home) for key in flat if key.startswith(home))
    return (
        f"{name} is not a SegFormer or EDAFormer in a known style: it has keys such as {', '.join(keys[:3])}. "
        "Expected keys like backbone.patch_embed1.proj.weight (official SegFormer, EDAFormer, NVIDIA TAO), "
        "encoder.patch_embed1.proj.weight (SMP), backbone.layers.0.0.projection.weight (MMSegmentation, MMPose) or "
        "segformer.encoder.patch_embeddings.0.proj.weight (Transformers)"
    )
