"""A network that counts who asks for it, and answers nobody."""

import socket

import pytest
from huggingface_hub import constants


@pytest.fixture
def asked(monkeypatch) -> list:
    """Every attempt to look up or reach a host, which fails; none is forbidden before by HF_HUB_OFFLINE."""
    attempts: list = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise OSError("no network in tests")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return attempts
