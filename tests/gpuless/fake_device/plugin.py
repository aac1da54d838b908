"""A pytest plugin: this process has the fake device, and the tests' `cuda:device` half runs on it.

python -m pytest -p tests.gpuless.fake_device.plugin -m gpu tests/parity
"""

from . import register

register()
