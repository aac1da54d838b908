"""Networks of the papers, by name: `list_models()`, `create_model(name, rule=..., norm=..., steps=...)`."""

from .digits import digits_conv, digits_conv_normed, digits_empf, digits_mlp, digits_mlp_normed
from .empf import empf_resnet18, empf_resnet34, empf_vgg13, empf_vggsnn
from .recurrent import Delay, Recurrent, r400, shd
from .registry import create_model, list_models
from .residual import EMPFBlock
from .resnet import (
    NFBlock,
    ms_resnet18,
    ms_resnet34,
    nf_resnet18,
    nf_resnet34,
    preact_resnet18,
    preact_resnet34,
    sew_resnet18,
    sew_resnet34,
    spiking_resnet18,
    spiking_resnet19,
    spiking_resnet34,
)
from .style import NORMS, Style
from .transformer import (
    Masked,
    SpikeDrivenAttention,
    SpikingAttention,
    TokenAttention,
    qkformer,
    spike_driven_transformer,
    spikformer,
)
from .vgg import VGGFeedback, vgg, vgg11, vgg13, vgg_f, vggsnn

__all__ = [
    "NORMS",
    "Delay",
    "EMPFBlock",
    "Masked",
    "NFBlock",
    "Recurrent",
    "SpikeDrivenAttention",
    "SpikingAttention",
    "Style",
    "TokenAttention",
    "VGGFeedback",
    "create_model",
    "digits_conv",
    "digits_conv_normed",
    "digits_empf",
    "digits_mlp",
    "digits_mlp_normed",
    "empf_resnet18",
    "empf_resnet34",
    "empf_vgg13",
    "empf_vggsnn",
    "list_models",
    "ms_resnet18",
    "ms_resnet34",
    "nf_resnet18",
    "nf_resnet34",
    "preact_resnet18",
    "preact_resnet34",
    "qkformer",
    "r400",
    "sew_resnet18",
    "sew_resnet34",
    "shd",
    "spike_driven_transformer",
    "spikformer",
    "spiking_resnet18",
    "spiking_resnet19",
    "spiking_resnet34",
    "vgg",
    "vgg11",
    "vgg13",
    "vgg_f",
    "vggsnn",
]
