"""`python main.py` on annotations as people have them: flags and ids as text, any language, no boxes."""

import json

import main as program
from tests.datasets.tiny import write_all
from tests.test_cli import TINY


def test_a_run_without_boxes_to_find_says_so_before_and_declares_no_best(tmp_path, capsys):
    data = write_all(tmp_path / "data")
    for split in ("train", "val"):
        (path,) = data.rglob(f"lvis_v1_{split}.json")
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "r\xf8d \u8d64"
        for row in content["annotations"]:
            row.update(id=str(row["id"]), iscrowd="0")
        if split == "val":
            content["annotations"] = []
        path.write_text(json.dumps(content))
    (tmp_path / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    words = [
        "-c",
        f"{tmp_path / 'tiny.py'}",
        "--data_path",
        f"{data}",
        "--device",
        "cpu",
        "--num_workers",
        "0",
    ]
    options = ["--options", "epochs=1", "early_stop_patience=1", "use_imagenet=False"]
    assert program.main([*words, "--output_dir", f"{tmp_path / 'run'}", *options]) == 0
    said = capsys.readouterr().out
    assert said.index("it has no boxes, so AP and all other metrics will be undefined") < said.index(
        "epoch 1/1"
    )
    assert "(best AP -)" in said and "AP".ljust(8) + "-".rjust(9) in said and "-100" not in said
    assert (tmp_path / "run/checkpoint.pth").exists() and not (tmp_path / "run/checkpoint_best.pth").exists()
