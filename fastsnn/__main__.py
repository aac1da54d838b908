"""`python -m fastsnn`."""

from .cli import command

command()
