"""Networks."""

from .digits import digits_conv, digits_mlp

__all__ = ["digits_conv", "digits_mlp"]
