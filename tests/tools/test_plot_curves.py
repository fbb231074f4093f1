import json

import pytest
from PIL import Image

from tools.plot_curves import main, series
from util.errors import UserError


def write_log(folder, steps: int = 6, metrics=True) -> None:
    lines = [
        {
            "kind": "step",
            "epoch": 1,
            "step": 10 * i,
            "total": 20.0 / (1 + i),
            "losses": {"loss_ce": 1.0, "loss_bbox_dn": None, "loss_giou_1": 0.5},
            "lr": 1e-3,
        }
        for i in range(steps)
    ]
    for epoch in (1, 2):
        numbers = {"AP": 0.1 * epoch, "AP50": 0.2 * epoch, "APr": -1.0} if metrics else None
        lines.append({"kind": "epoch", "epoch": epoch, "step": 30 * epoch, "losses": {}, "metrics": numbers})
    # A run that was killed leaves half a line.
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "st'
    (folder / "log.jsonl").write_text(text)


def colours(path) -> int:
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 24))


def test_curves_are_drawn_beside_the_log(tmp_path):
    write_log(tmp_path)
    main([str(tmp_path)])
    assert colours(tmp_path / "curves.png") > 50


def test_a_run_without_evaluation_has_loss_curves(tmp_path):
    write_log(tmp_path, metrics=False)
    main([str(tmp_path / "log.jsonl"), "--output", str(tmp_path / "x.png")])
    assert colours(tmp_path / "x.png") > 20


def test_entries_of_another_form_are_left_out(tmp_path):
    write_log(tmp_path)
    step = {"kind": "step", "step": 70, "losses": {}}
    strange = [
        {"kind": "step"},
        {**step, "losses": [1]},
        {**step, "losses": {"loss_ce": "1"}},
        {**step, "total": 10**400},
        {**step, "step": None},
        step,
        {"kind": "epoch", "epoch": 3, "metrics": 5},
        {"kind": "epoch", "metrics": {"AP": 0.1}},
        {"kind": "epoch", "epoch": 3, "metrics": {"AP": "high"}},
    ]
    with (tmp_path / "log.jsonl").open("r+") as file:
        whole = [line for line in file.read().splitlines() if line.endswith("}")]
        file.seek(0)
        file.write("".join(f"{line}\n" for line in [*whole, *map(json.dumps, strange)]))
        file.truncate()
    main([str(tmp_path)])
    assert colours(tmp_path / "curves.png") > 50


def test_missing_numbers_leave_gaps_not_zeros():
    lines = series([{"a": 1.0, "b": None}, {"a": 2.0, "b": 3.0}], [10, 20])
    assert lines == {"a": ([10, 20], [1.0, 2.0]), "b": ([20], [3.0])}


def test_a_missing_and_an_empty_log_are_named(tmp_path):
    with pytest.raises(UserError, match=r"log\.jsonl: no such log"):
        main([str(tmp_path)])
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(UserError, match="no step"):
        main([str(tmp_path)])
