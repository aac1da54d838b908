"""Networks."""

from .digits import digits_conv, digits_conv_normed, digits_empf, digits_mlp, digits_mlp_normed
from .residual import EMPFBlock

__all__ = [
    "EMPFBlock",
    "digits_conv",
    "digits_conv_normed",
    "digits_empf",
    "digits_mlp",
    "digits_mlp_normed",
]
