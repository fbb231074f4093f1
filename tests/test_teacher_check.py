"""`check_teacher`: the start of a run looks at what the teacher calls a few image-level images."""

import torch

from tests.test_cli import config_file as config_file  # a fixture
from tests.test_cli import data as data
from tests.test_cli import run
from tests.test_cli import teacher as teacher


def test_a_teacher_whose_sides_do_not_match_is_refused_before_the_first_step(
    teacher, config_file, data, tmp_path, capsys
):
    """The text side gives every class the same embedding."""
    name, file = (option.split("=")[1] for option in teacher[:2])
    weights = torch.load(file)
    weights["ln_final.weight"].zero_()
    weights["ln_final.bias"].fill_(1)
    torch.save(weights, tmp_path / "other.pt")
    checked = [option for option in teacher if not option.startswith(("check_teacher", "clip_pretrained"))]
    options = (*checked, f"clip_pretrained={tmp_path / 'other.pt'}", "epochs=1")
    words = ("-c", config_file, "--data_path", data, "--output_dir", tmp_path / "run", "--num_workers", "0")
    assert run(*words, "--options", *options) == 2
    said = capsys.readouterr().err
    assert f"clip_model={name!r} with clip_pretrained='{tmp_path / 'other.pt'}': names 0 of 7" in said
    assert "(chance: 2.3): its image and text sides do not match" in said
    assert run(*words, "--options", *options, "check_teacher=False", "dry_run=True") == 0
