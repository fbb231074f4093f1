"""Signals and the time limit: a checkpoint at the next step, one line, the right exit status."""

import os
import signal
import time
from pathlib import Path

import pytest

from engine.evaluate import CHECK_EVERY, evaluate
from engine.stopping import Stopped, Stopping
from tests.checkpoints import read_checkpoint
from tests.engine import test_resume
from tests.engine.toys import ToyEvaluator, ToyLoader, make_toy, toy_images, toy_postprocess
from util import distributed
from util.signals import SignalStop

pytestmark = pytest.mark.usefixtures("no_nohup")
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 0}


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def at(batch: int, action) -> object:
    """A hook that acts in the forward pass of batch `batch`, from 1."""
    left = [batch]

    def hook() -> None:
        left[0] -= 1
        if not left[0]:
            action()

    return hook


@pytest.mark.parametrize(("number", "accumulate"), [*((n, 1) for n in STATUS), (signal.SIGTERM, 3)])
def test_a_signal_stops_at_the_next_step(tmp_path, caplog, number, accumulate):
    caplog.set_level("INFO", logger="engine")
    changes = {"accumulate_steps": accumulate}
    with Stopping() as stopping:
        hook = at(4, lambda: send(number))
        run = test_resume.go(tmp_path / "run", changes, hook, stopping=stopping, status=STATUS[number])
    iteration = 4 if accumulate == 1 else 6
    step = iteration // accumulate
    assert caplog.messages[-1] == f"stopped at step {step}, resume with --resume auto"
    assert read_checkpoint(run.latest).iteration == iteration
    whole = test_resume.go(tmp_path / "whole", changes)
    test_resume.assert_same_run(whole, test_resume.go(tmp_path / "run", changes))


@pytest.mark.parametrize("batch", [7, 14])
def test_a_signal_in_the_last_step_of_an_epoch_stops_before_its_evaluation(tmp_path, batch):
    with Stopping() as stopping:
        hook = at(batch, lambda: send(signal.SIGTERM))
        run = test_resume.go(tmp_path / "run", {}, hook, stopping=stopping, status=143)
    content = read_checkpoint(run.latest)
    assert (content.epoch, content.iteration, content.evaluated) == (batch // 7, 0, False)
    whole = test_resume.go(tmp_path / "whole", {})
    test_resume.assert_same_run(whole, test_resume.go(tmp_path / "run", {}))


def test_a_signal_stops_an_evaluation_without_its_end(tmp_path, monkeypatch):
    seen = []

    def update(self, image_ids, detections) -> None:
        seen.extend(image_ids)
        send(signal.SIGTERM)

    with monkeypatch.context() as patch, Stopping() as stopping:
        patch.setattr(ToyEvaluator, "update", update)
        run = test_resume.go(tmp_path / "run", {}, stopping=stopping, status=143)
    assert len(seen) == 1
    content = read_checkpoint(run.latest)
    assert (content.epoch, content.evaluated) == (1, False)
    whole = test_resume.go(tmp_path / "whole", {})
    test_resume.assert_same_run(whole, test_resume.go(tmp_path / "run", {}))


def test_the_time_limit_stops_with_status_0(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("engine.stopping.time.monotonic", lambda: now[0])

    def hook() -> None:
        now[0] += 25

    stopping = Stopping()
    stopping.limit(1.0)
    run = test_resume.go(tmp_path / "run", {}, hook, stopping=stopping, status=0)
    assert read_checkpoint(run.latest).iteration == 3


def test_a_second_ctrl_c_stops_at_once_and_one_sent_twice_does_not(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("engine.stopping.time.monotonic", lambda: now[0])

    def twice(pause: float) -> None:
        send(signal.SIGINT)
        now[0] += pause
        send(signal.SIGINT)

    with Stopping() as stopping:
        run = test_resume.go(tmp_path / "a", {}, at(2, lambda: twice(0.1)), stopping=stopping, status=130)
        assert read_checkpoint(run.latest).iteration == 2
    with Stopping() as stopping, pytest.raises(SignalStop) as caught:
        test_resume.go(tmp_path / "b", {}, at(2, lambda: twice(1.0)), stopping=stopping)
    assert caught.value.status == 130
    assert not (tmp_path / "b" / "checkpoint.pth").exists()


@pytest.mark.parametrize("number", STATUS)
def test_before_training_a_signal_ends_the_process_at_once(number):
    with Stopping(), pytest.raises(SignalStop) as caught:
        send(number)
        time.sleep(1)
    assert caught.value.status == STATUS[number]


def test_nohup_is_obeyed():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Stopping():
        send(signal.SIGHUP)
        time.sleep(0.1)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_handlers_are_put_back_but_for_the_signal_that_is_sent_again():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Stopping():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    send(signal.SIGUSR1)


def test_a_forked_process_leaves_the_decision_to_its_parent():
    with Stopping() as stopping:
        outcomes = []
        for number in STATUS:
            if not (child := os.fork()):
                send(number)
                os._exit(7)
            outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stopping.check()
    assert outcomes == [143, 7, 7, 7]


def stop_on_one_rank(folder: Path) -> tuple[int, int]:
    """Only rank 1 gets the signal: in a step, then in an evaluation."""
    statuses = []
    with Stopping() as stopping:
        hook = at(2, lambda: send(signal.SIGTERM) if distributed.rank() else None)
        run = test_resume.go(folder / "step", {}, hook, stopping=stopping, status=143)
        statuses.append(read_checkpoint(run.latest).iteration)

    class Signalled(ToyEvaluator):
        def update(self, image_ids, detections) -> None:
            if distributed.rank():
                send(signal.SIGUSR1)

    class Uneven(ToyLoader):
        def __len__(self) -> int:
            return CHECK_EVERY + 1 - distributed.rank()

    toy = make_toy(Uneven(toy_images(20), 1))
    with Stopping() as stopping:
        evaluate(toy.state.model, toy.loader, toy_postprocess, ToyEvaluator(), toy.settings, stopping.check)
    with Stopping() as stopping, pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_resume, "ToyEvaluator", Signalled)
        run = test_resume.go(folder / "evaluation", {}, stopping=stopping, status=0, val_images=37)
        content = read_checkpoint(run.latest)
        statuses.append(content.epoch if not content.evaluated else -1)
    return tuple(statuses)


def test_agreeing_without_ranks_is_nothing():
    stopping = Stopping()
    assert list(stopping.agree(True, False)) == [True, False, 0]
    stopping.limit(0.0)
    with pytest.raises(Stopped):
        stopping.check()
