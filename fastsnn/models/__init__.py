"""Networks."""

from .digits import digits_conv, digits_empf, digits_mlp
from .residual import EMPFBlock

__all__ = ["EMPFBlock", "digits_conv", "digits_empf", "digits_mlp"]
