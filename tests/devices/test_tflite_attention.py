"""TFLite models of attention and of reshapes between layouts, as torch exports them."""

import io
import warnings

import onnx
import pytest
import torch
from onnx_cases import assert_agrees
from torch import nn

IMAGE = (1, 3, 24, 24)


class TokensOfPatches(nn.Module):
    """A class token before the patches, torch's own attention, the mean of what it gives."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 37, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)

    def forward(self, image):
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        first = self.token.expand(tokens.shape[0], -1, -1)
        tokens = torch.cat((first, tokens), 1) + self.positions
        value = self.norm(tokens)
        return (tokens + self.attention(value, value, value, need_weights=False)[0]).mean(1)


class ScaledDotProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(24, 72)

    def forward(self, image):
        batch, channels, _, _ = image.shape
        tokens = image.reshape(batch, channels * 8, -1).transpose(1, 2)
        parts = self.qkv(tokens).reshape(batch, -1, 3, 4, 6).permute(2, 0, 3, 1, 4)
        result = nn.functional.scaled_dot_product_attention(*parts)
        return result.transpose(1, 2).reshape(batch, -1, 24)


class Windows(nn.Module):
    """Windows of an image, shifted (Liu et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, image):
        batch, channels, height, width = image.shape
        parts = (batch, height // 4, 4, width // 4, 4, channels)
        value = image.permute(0, 2, 3, 1).reshape(parts).permute(0, 1, 3, 2, 4, 5)
        value = value.reshape(-1, 16, channels)
        value = self.layer(value) + value
        parts = (batch, height // 4, width // 4, 4, 4, channels)
        value = value.reshape(parts).permute(0, 1, 3, 2, 4, 5)
        value = value.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return torch.roll(value, (2, 2), (2, 3)).clamp(-0.5, 0.5)


class OverAllPixels(nn.Module):
    """Softmax over an image, beside statistics of it."""

    def forward(self, image):
        batch, channels, _, _ = image.shape
        weights = image.view(batch, channels, -1).softmax(-1).view(image.shape)
        deviation = image.flatten(2).std(-1)[..., None, None]
        return weights * nn.functional.normalize(image, dim=1) + deviation


class GatedHalves(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 1)

    def forward(self, image):
        return nn.functional.glu(self.convolution(image), 1)


class Mixer(nn.Module):
    """Linear layers on pixels and on channels in turn (Tolstikhin et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.pixels = nn.Linear(576, 576)
        self.channels = nn.Linear(3, 3)

    def forward(self, image):
        tokens = image.flatten(2).transpose(1, 2)
        tokens = tokens + self.pixels(tokens.transpose(1, 2)).transpose(1, 2)
        return nn.functional.gelu(self.channels(tokens)) + tokens


MODULES = {
    # most TRANSPOSE operators: where pixels are mixed they must lie innermost, and then back
    TokensOfPatches: 4,
    ScaledDotProduct: 3,
    Windows: 2,
    OverAllPixels: 2,
    GatedHalves: 0,
    Mixer: 2,
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_exported_module_agrees_with_few_transpositions(module, opset, dynamic):
    torch.manual_seed(0)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module().eval(),
            (torch.randn(IMAGE),),
            content,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}} if dynamic else None,
        )
    written = assert_agrees(onnx.load_from_string(content.getvalue()), 2e-5)
    assert written.count("TRANSPOSE") <= MODULES[module]
