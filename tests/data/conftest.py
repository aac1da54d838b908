import socket

import pytest


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a test of data asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
