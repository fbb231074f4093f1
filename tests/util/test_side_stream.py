"""Without a GPU: which calls are made in which order. The stream's own work needs one."""

import contextlib

import pytest
import torch

from util import side_stream


def test_on_a_cpu_the_result_is_there_at_once():
    x = torch.ones(2)
    get = side_stream.beside(lambda t: t + 1, x)
    x.zero_()
    assert torch.equal(get(), torch.full((2,), 2.0)) and get() is get()


class Recorded:
    """Writes down what is asked of it, in `calls`."""

    def __init__(self, name: str, calls: list):
        self.name, self.calls, self.device = name, calls, torch.device("cuda", 0)

    def __getattr__(self, method):
        def call(*others):
            self.calls.append((self.name, method, *(o.name for o in others)))
            return Recorded("done", self.calls)

        return call


@pytest.fixture
def streams(monkeypatch):
    """The calls that are made of the current stream, the side stream and tensors."""
    calls: list = []
    current = [Recorded("current", calls)]

    @contextlib.contextmanager
    def stream(chosen):
        before, current[0] = current[0], chosen
        yield
        current[0] = before

    side_stream._side_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Recorded("side", calls))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[0])
    monkeypatch.setattr(torch.cuda, "stream", stream)
    yield calls, current
    side_stream._side_stream.cache_clear()


def test_the_side_stream_waits_for_the_input_and_the_asking_stream_for_the_result(streams):
    calls, current = streams
    images = Recorded("images", calls)

    def compute(x):
        calls.append(("compute", x.name, "on", current[0].name))
        return Recorded("map", calls)

    get = side_stream.beside(compute, images)
    assert calls == [
        ("side", "wait_stream", "current"),
        ("compute", "images", "on", "side"),
        ("side", "record_event"),
        ("images", "record_stream", "side"),
    ]
    del calls[:]
    assert get().name == "map"
    assert calls == [("current", "wait_event", "done"), ("map", "record_stream", "current")]
    del calls[:]
    side_stream.beside(compute, images)
    assert calls[0] == ("side", "wait_stream", "current"), "one side stream for a GPU, again and again"
