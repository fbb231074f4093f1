"""hf:// paths with the Hub's real cache, without a network; `test_hub_server.py` has one on this machine."""

import socket
from pathlib import Path

import huggingface_hub
import pytest

from util import hub
from util.errors import UserError
from util.hub import file_of, is_address, offline_if_unreachable, resolve

COMMIT = "a" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A snapshot as a download leaves it: somebody/cups with weights, a description and an ONNX file."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--cups"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "onnx").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "onnx/small.onnx"):
        (snapshot / name).write_bytes(b"content")
    (repository / "refs").mkdir()
    for reference in ("main", "v1"):
        (repository / "refs" / reference).write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("hf://somebody/cups", "model.safetensors"),
        ("hf://somebody/cups/", "model.safetensors"),
        ("hf://somebody/cups@v1", "model.safetensors"),
        ("hf://somebody/cups/onnx/small.onnx", "onnx/small.onnx"),
        ("hf://somebody/cups/onnx/small.onnx@v1", "onnx/small.onnx"),
        ("hf://somebody/cups@v1/onnx/small.onnx", "onnx/small.onnx"),
        (f"hf://somebody/cups/config.json@{COMMIT}", "config.json"),
        (Path("hf://somebody/cups/onnx/small.onnx@v1"), "onnx/small.onnx"),
    ],
)
def test_an_address_names_a_file_of_the_cache(cache, address, file):
    assert is_address(address) and resolve(address) == cache / file


def test_other_paths_stay_as_they_are(tmp_path):
    for path in ("run/checkpoint.pth", tmp_path, "hf/model.safetensors", "hf:model"):
        assert not is_address(path) and resolve(path) == Path(path)


@pytest.mark.parametrize(
    "address", ["hf://cups", "hf://", "hf:///cups", "hf://a/b@v1/c@v2", "hf://a/b@", "hf://a@v1/b"]
)
def test_an_address_of_another_form_is_refused(cache, address):
    with pytest.raises(UserError, match=r"the form of an address is hf://OWNER/NAME\[/FILE\]\[@REVISION\]"):
        resolve(address)


def test_a_name_that_the_hub_forbids_is_refused(cache):
    with pytest.raises(UserError, match="hf://some body/cups: "):
        resolve("hf://some body/cups")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/me@home/model.onnx", "model.onnx"),
        (Path("model@2.onnx"), "model@2.onnx"),
        ("hf://somebody/cups", "model.safetensors"),
        ("hf://somebody/cups/onnx/small.onnx@v1", "small.onnx"),
        ("hf://somebody/cups@v1/onnx/small.onnx", "small.onnx"),
    ],
)
def test_the_name_of_a_file_is_not_cut_at_an_at_sign_of_its_folder(path, name):
    assert file_of(path) == name


@pytest.mark.parametrize(
    "address", ["hf://somebody/plates", "hf://somebody/cups/absent.pth", "hf://somebody/cups@v2"]
)
def test_what_is_not_in_the_cache_needs_the_network(cache, monkeypatch, address):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        resolve(address)
    assert "is not in the cache, and HF_HUB_OFFLINE forbids the network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_host_that_does_not_answer_is_asked_twice_and_the_cache_still_serves(cache, monkeypatch, caplog):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as unused:  # bound but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        naps = []
        monkeypatch.setattr(hub.time, "sleep", naps.append)
        assert resolve("hf://somebody/cups") == cache / "model.safetensors"
        with pytest.raises(UserError, match=f"not in the cache, and {endpoint} cannot be reached"):
            resolve("hf://somebody/plates")
        assert naps == [1.0, 1.0] and not caplog.records
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_a_host_that_answers_keeps_its_retries(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with offline_if_unreachable():
            assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_behind_a_proxy_the_host_is_not_asked(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with offline_if_unreachable():
        assert huggingface_hub.constants.HF_HUB_OFFLINE is False
