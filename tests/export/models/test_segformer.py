"""The network against a slow, obvious version in float64: attention, Mix-FFN, decode heads, grids, thinning."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from sfpp.export.catalog import MIT_SIZES
from sfpp.export.models.recipe import NO_MERGING, Bipartite, KMeans, MergingRecipe, Pool1d, Pool2d, StageRecipe
from sfpp.export.models.segformer import (
    EncoderConfig,
    HeadConfig,
    SegFormer,
    SegFormerConfig,
    image_to_tokens,
    tokens_to_image,
)
from sfpp.export.models.token_merging import merge_tokens, unit_tokens
from tests.export.networks import randomized

# Every size differs from every other, and so do the two epsilons, which are large enough to show.
TINY = EncoderConfig(
    channels=(6, 8, 12, 20),
    depths=(1, 2, 1, 1),
    heads=(1, 2, 3, 5),
    reductions=(4, 3, 2, 1),
    expansions=(2, 4, 3, 2),
    block_eps=0.03,
    embed_eps=0.2,
)
EVERY_SIDE = MergingRecipe(
    (
        StageRecipe(query=Pool2d((2, 3)), key_value=Bipartite(0.4, (2, 2)), sized=True),
        StageRecipe(query=Bipartite(0.5, (2, 3)), key_value=Pool2d((1, 2)), sized=True),
        StageRecipe(query=KMeans(0.6), key_value=KMeans(0.5), sized=True),
        StageRecipe(query=Pool1d(3), key_value=Pool1d(2)),
    )
)


def random_network(kind="mmseg", encoder=TINY, **head):
    config = SegFormerConfig(encoder, HeadConfig(kind, width=10, classes=5, **head))
    return randomized(SegFormer(config).double(), seed=11)


def random_tokens(count, channels, batch=2):
    generator = torch.Generator().manual_seed(12)
    return torch.randn(batch, count, channels, dtype=torch.float64, generator=generator)


def random_image(height, width, batch=1):
    return random_tokens(height * width, 3, batch).transpose(1, 2).reshape(batch, 3, height, width)


def slow_norm(layer, tokens, eps):
    centered = tokens - tokens.mean(-1, keepdim=True)
    return centered / torch.sqrt(centered.square().mean(-1, keepdim=True) + eps) * layer.weight + layer.bias


def slow_convolution(conv, image, stride, pad):
    """One output position at a time."""
    padded = F.pad(image, (pad, pad, pad, pad))
    kernel = conv.weight.shape[-1]
    rows = range(0, padded.shape[2] - kernel + 1, stride)
    columns = range(0, padded.shape[3] - kernel + 1, stride)
    windows = [[padded[:, :, y : y + kernel, x : x + kernel] for x in columns] for y in rows]
    answers = [torch.stack([window.flatten(1) @ conv.weight.flatten(1).T for window in row], -1) for row in windows]
    return torch.stack(answers, -2) + conv.bias.reshape(-1, 1, 1)


def slow_attention(layer, tokens, grid_hw, recipe):
    queries, copy_back, _ = merge_tokens(tokens, grid_hw, recipe.query)
    context, context_grid, ratio = tokens, grid_hw, layer.reduction_ratio
    if ratio > 1:
        image = tokens.transpose(1, 2).reshape(len(tokens), -1, *grid_hw)
        reduced = slow_convolution(layer.reduction, image, ratio, 0)
        context, context_grid = reduced.flatten(2).transpose(1, 2), tuple(reduced.shape[2:])
        context = slow_norm(layer.reduction_norm, context, TINY.embed_eps)
    context, _, sizes = merge_tokens(context, context_grid, recipe.key_value)
    weights = sizes.unsqueeze(1) if recipe.sized else 1.0
    channels, width = tokens.shape[2], tokens.shape[2] // layer.heads
    query = queries @ layer.query.weight.T + layer.query.bias
    key = context @ layer.key_value.weight[:channels].T + layer.key_value.bias[:channels]
    value = context @ layer.key_value.weight[channels:].T + layer.key_value.bias[channels:]
    answers = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        scores = weights * torch.exp(query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width))
        answers.append(scores / scores.sum(-1, keepdim=True) @ value[..., part])
    return copy_back(torch.cat(answers, -1) @ layer.output.weight.T + layer.output.bias)


def slow_ffn(layer, tokens, grid_hw):
    hidden = tokens @ layer.expand.weight.T + layer.expand.bias
    padded = F.pad(hidden.reshape(len(tokens), *grid_hw, -1), (0, 0, 1, 1, 1, 1))
    (rows, columns), total = grid_hw, layer.depthwise.bias
    for y in range(3):
        for x in range(3):
            total = total + padded[:, y : y + rows, x : x + columns] * layer.depthwise.weight[:, 0, y, x]
    total = total.reshape(hidden.shape)
    activated = 0.5 * total * (1 + torch.erf(total / math.sqrt(2)))
    return activated @ layer.contract.weight.T + layer.contract.bias


def slow_block(block, tokens, grid_hw, recipe):
    normed = slow_norm(block.norm1, tokens, TINY.block_eps)
    tokens = tokens + slow_attention(block.attention, normed, grid_hw, recipe)
    return tokens + slow_ffn(block.ffn, slow_norm(block.norm2, tokens, TINY.block_eps), grid_hw)


def slow_encoder(encoder, image, recipe):
    features = []
    for index, (stage, stage_recipe) in enumerate(zip(encoder.stages, recipe.stages, strict=True)):
        kernel, stride = (7, 4) if index == 0 else (3, 2)
        embedded = slow_convolution(stage.patch_embed.projection, image, stride, kernel // 2)
        grid_hw = tuple(embedded.shape[2:])
        tokens = slow_norm(stage.patch_embed.norm, embedded.flatten(2).transpose(1, 2), TINY.embed_eps)
        for block in stage.blocks:
            tokens = slow_block(block, tokens, grid_hw, stage_recipe)
        tokens = slow_norm(stage.norm, tokens, TINY.block_eps)
        image = tokens.transpose(1, 2).reshape(len(tokens), -1, *grid_hw)
        features.append(image)
    return features


def slow_weights(size, raised_size, *, align_corners=False):
    """Bilinear weights (raised_size, size): pixel centers at halves, the border's value beyond the border.

    Or the first and the last of both on each other, and the others evenly between them.
    """
    weights = torch.zeros(raised_size, size, dtype=torch.float64)
    for index in range(raised_size):
        center = min(max((index + 0.5) * size / raised_size - 0.5, 0.0), size - 1.0)
        if align_corners:
            center = index * (size - 1) / max(1, raised_size - 1)
        low = int(center)
        weights[index, low] += 1 - (center - low)
        weights[index, min(low + 1, size - 1)] += center - low
    return weights


def slow_unit(unit, image):
    convolved = torch.einsum("bihw,oi->bohw", image, unit.conv.weight[:, :, 0, 0])
    if unit.bn is None:
        return convolved + unit.conv.bias.reshape(-1, 1, 1)
    mean, variance = unit.bn.running_mean.reshape(-1, 1, 1), unit.bn.running_var.reshape(-1, 1, 1)
    weight, bias = unit.bn.weight.reshape(-1, 1, 1), unit.bn.bias.reshape(-1, 1, 1)
    return ((convolved - mean) / torch.sqrt(variance + 1e-5) * weight + bias).clamp(min=0)


def slow_head(head, features):
    rows, columns = features[0].shape[2:]
    raised = []
    for unit, feature in zip(head.projections, features, strict=True):
        vertical, horizontal = (
            slow_weights(size, raised_size, align_corners=head.align_corners)
            for size, raised_size in zip(feature.shape[2:], (rows, columns), strict=True)
        )
        raised.append(vertical @ slow_unit(unit, feature) @ horizontal.T)
    fused = slow_unit(head.fusion, torch.cat(raised, 1))
    logits = torch.einsum("bihw,oi->bohw", fused, head.classifier.weight[:, :, 0, 0])
    return logits + head.classifier.bias.reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("stage", "grid_hw", "recipe"),
    [
        (0, (9, 14), StageRecipe()),
        (1, (7, 11), StageRecipe()),
        (3, (4, 5), StageRecipe()),
        (0, (9, 14), StageRecipe(query=Pool2d((2, 2)), key_value=Bipartite(0.5, (2, 3)))),
        (1, (7, 11), StageRecipe(query=Bipartite(0.6, (2, 2)), key_value=Pool1d(2), sized=True)),
        (0, (9, 14), StageRecipe(key_value=Bipartite(0.5, (2, 3)), sized=True)),
        (3, (4, 5), StageRecipe(query=KMeans(0.7), key_value=KMeans(0.8), sized=True)),
        (3, (4, 5), StageRecipe(query=Bipartite(0.5, (2, 2)), key_value=Bipartite(1.0, (4, 2)))),
    ],
)
def test_a_block_equals_the_slow_one(stage, grid_hw, recipe):
    block = random_network().encoder.stages[stage].blocks[0]
    tokens = random_tokens(grid_hw[0] * grid_hw[1], TINY.channels[stage])
    torch.testing.assert_close(
        block.attention(tokens, grid_hw, recipe)[0],
        slow_attention(block.attention, tokens, grid_hw, recipe),
        rtol=1e-10,
        atol=1e-10,
    )
    torch.testing.assert_close(
        block(tokens, grid_hw, recipe)[0], slow_block(block, tokens, grid_hw, recipe), rtol=1e-10, atol=1e-10
    )


def test_attention_equals_torchs_own():
    layer = random_network().encoder.stages[3].blocks[0].attention
    tokens = random_tokens(20, 20)
    sequence_first = tokens.transpose(0, 1)
    expected, _ = F.multi_head_attention_forward(
        sequence_first,
        sequence_first,
        sequence_first,
        embed_dim_to_check=20,
        num_heads=5,
        in_proj_weight=torch.cat([layer.query.weight, layer.key_value.weight]),
        in_proj_bias=torch.cat([layer.query.bias, layer.key_value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=layer.output.weight,
        out_proj_bias=layer.output.bias,
        training=False,
        need_weights=False,
    )
    update, _ = layer(tokens, (4, 5), StageRecipe())
    torch.testing.assert_close(update, expected.transpose(0, 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["official", "mmseg"])
@pytest.mark.parametrize("recipe", [NO_MERGING, EVERY_SIDE], ids=["unmerged", "merged"])
def test_the_network_equals_the_slow_one(kind, recipe):
    model, image = random_network(kind), random_image(75, 98)
    features = model.encoder(image, recipe)
    expected = slow_encoder(model.encoder, image, recipe)
    for have, want in zip(features, expected, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)
    logits = model(image, recipe)
    assert logits.shape == (1, 5, 19, 25)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, slow_head(model.head, expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["official", "mmseg"])
@pytest.mark.parametrize("grids", [((19, 25), (10, 13), (5, 7), (3, 4)), ((7, 3), (4, 2), (2, 1), (1, 1))])
def test_a_head_that_aligns_corners_equals_the_slow_one(kind, grids):
    head, other = (random_network(kind, align_corners=each).head for each in (True, False))
    features = [
        torch.randn(2, count, *grid, dtype=torch.float64) for count, grid in zip(TINY.channels, grids, strict=True)
    ]
    torch.testing.assert_close(head(features), slow_head(head, features), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other(features), slow_head(other, features), rtol=1e-9, atol=1e-9)
    assert (head(features) - other(features)).abs().max() > 1e-2


@pytest.mark.parametrize("channels", [1, 4])
def test_an_image_may_have_other_channels(channels):
    model = random_network(encoder=dataclasses.replace(TINY, in_channels=channels))
    image = torch.randn(1, channels, 75, 98, dtype=torch.float64)
    logits = model(image)
    expected = slow_head(model.head, slow_encoder(model.encoder, image, NO_MERGING))
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_merging_changes_the_answer():
    model, image = random_network(), random_image(75, 98)
    for number in range(4):
        alone = MergingRecipe(tuple(EVERY_SIDE.stages[i] if i == number else StageRecipe() for i in range(4)))
        assert (model(image, alone) - model(image)).abs().max() > 1e-3, number


@pytest.mark.parametrize("kind", ["official", "mmseg"])
def test_heads_differ_in_norm_and_bias(kind):
    head = random_network(kind).head
    for unit in head.projections:
        assert (unit.bn is None) == (kind == "official")
        assert (unit.conv.bias is None) == (kind == "mmseg")
    assert head.fusion.conv.bias is None
    assert head.fusion.conv.weight.shape == (10, 40, 1, 1)


@pytest.mark.parametrize(
    ("size_hw", "grids"),
    [
        ((2160, 3840), ((540, 960), (270, 480), (135, 240), (68, 120))),
        ((1080, 1920), ((270, 480), (135, 240), (68, 120), (34, 60))),
        ((250, 333), ((63, 84), (32, 42), (16, 21), (8, 11))),
        ((1, 33), ((1, 9), (1, 5), (1, 3), (1, 2))),
    ],
)
def test_stage_grids_are_what_the_convolutions_give(size_hw, grids):
    assert EncoderConfig(*MIT_SIZES["b0"]).stage_grids(size_hw) == grids


@pytest.mark.parametrize("size_hw", [(65, 97), (96, 99), (71, 130)])
def test_feature_maps_have_the_grids_that_are_foretold(size_hw):
    odd = EncoderConfig(
        (4, 4, 4, 4),
        (1, 1, 1, 1),
        heads=(1, 1, 1, 1),
        reductions=(2, 2, 1, 1),
        expansions=(1, 1, 1, 1),
        patch_kernels=(7, 5, 4, 3),
        patch_strides=(4, 3, 2, 1),
    )
    features = random_network(encoder=odd).encoder(random_image(*size_hw), NO_MERGING)
    assert tuple(tuple(each.shape[2:]) for each in features) == odd.stage_grids(size_hw)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 129), (98, 131)])
def test_downsample_takes_every_second_pixel(height, width):
    model, image = random_network(), random_image(height, width)
    halved = F.interpolate(image, scale_factor=0.5, mode="nearest")
    pixels = [[image[0, :, 2 * y, 2 * x] for x in range(width // 2)] for y in range(height // 2)]
    assert torch.equal(halved[0], torch.stack([torch.stack(row, -1) for row in pixels], -2))
    assert torch.equal(model(image, MergingRecipe(input_step=2)), model(halved))


def test_batch_equals_singles():
    model, images = random_network(), random_image(75, 98, batch=3)
    together = model(images, EVERY_SIDE)
    singles = torch.cat([model(image[None], EVERY_SIDE) for image in images])
    torch.testing.assert_close(together, singles, rtol=1e-9, atol=1e-9)


def test_tokens_are_in_row_major_order():
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    tokens = image_to_tokens(image)
    assert tokens.shape == (1, 12, 2)
    assert tokens[0, 5].tolist() == [image[0, 0, 1, 1], image[0, 1, 1, 1]]
    assert torch.equal(tokens_to_image(tokens, (3, 4)), image)


def test_sizes_have_the_published_numbers_of_parameters():
    # millions, encoder and head, arXiv 2105.15203 table 1 with 150 classes
    published = {"b0": (3.4, 0.4, 256), "b1": (13.1, 0.6, 256), "b2": (24.2, 3.3, 768), "b5": (81.4, 3.3, 768)}
    for size, (encoder, head, width) in published.items():
        with torch.device("meta"):
            model = SegFormer(SegFormerConfig(EncoderConfig(*MIT_SIZES[size]), HeadConfig("official", width, 150)))
        counts = [sum(each.numel() for each in part.parameters()) / 1e6 for part in (model.encoder, model.head)]
        assert counts == pytest.approx([encoder, head], abs=0.15), size


def test_defaults_are_what_all_sizes_share():
    # arXiv 2105.15203, table 6; the epsilons are those of MMSegmentation
    config = EncoderConfig(*MIT_SIZES["b3"])
    assert (config.heads, config.reductions, config.expansions) == ((1, 2, 5, 8), (8, 4, 2, 1), (4, 4, 4, 4))
    assert (config.patch_kernels, config.patch_strides) == ((7, 3, 3, 3), (4, 2, 2, 2))
    assert (config.block_eps, config.embed_eps) == (1e-6, 1e-6)


def test_a_token_of_zeros_is_like_nothing():
    tokens = random_tokens(16, 5, batch=1)
    tokens[:, [0, 5]] = 0.0  # a destination and a source
    sources, destinations = unit_tokens(tokens, (4, 4), (2, 2))
    lengths = torch.cat([destinations, sources], 1).norm(dim=-1)[0]
    expected = torch.ones(16, dtype=torch.float64)
    expected[[0, 4 + 3]] = 0.0  # the sources are 1, 3, 4, 5, ...
    torch.testing.assert_close(lengths, expected)
