"""What the doctor prints is worth reading, for one fault and for a thousand."""

import json

import pytest

from tests.tools.data_doctor.faulty_sets import a_thousand_faults
from tools.data_doctor.findings import Finding, Severity, found, warnings_as_findings
from tools.data_doctor.report import headline, in_singular, report
from tools.doctor import main
from util.logging import get_logger


def named(count):
    return [f"annotation {number}" for number in range(count)]


def test_a_thousand_faults_of_twelve_kinds_fit_on_two_screens(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    a_thousand_faults(tmp_path / "DATA")
    words = [str(tmp_path / "DATA"), "--plot", str(tmp_path / "t.png"), "--json", str(tmp_path / "f.json")]
    assert main(words) == 2
    printed = capsys.readouterr().out
    faults = [f for f in json.loads((tmp_path / "f.json").read_text()) if f["severity"] != "note"]
    cases = sum(f["count"] for f in faults)
    assert len(faults) >= 12 and cases >= 1000
    lines = printed.splitlines()
    assert "\x1b" not in printed, "colours are for terminals"
    assert len(lines) < 110 and all(len(line) <= 100 or "/" in line for line in lines)
    assert lines[0].startswith("Training stops") and "WARNING" not in printed[: printed.rindex("ERROR")]
    assert all(f["count"] == max(1, len(f["examples"])) for f in faults), "the JSON holds every example"
    assert main([*words, "--all"]) == 2
    assert len(capsys.readouterr().out.splitlines()) > cases


def test_worst_first_then_most_cases_and_one_entry_for_all_parts():
    findings = [
        Finding(Severity.NOTE, "val", "3 of 5 images have no box"),
        *found(Severity.WARNING, "train", "{n} boxes are tiny", named(2), "look at them"),
        *found(Severity.WARNING, "train", "{n} boxes are huge", named(3), "look at them too"),
        *found(Severity.WARNING, "val", "{n} boxes are tiny", named(1500), "look at them"),
        Finding(Severity.ERROR, "val", "no boxes", "is it the right file?"),
    ]
    text = report(findings, 80)
    places = [text.index(w) for w in ("no boxes", "boxes are tiny", "boxes are huge", "have no box")]
    assert places == sorted(places)
    assert text.count("boxes are tiny") == text.count("look at them\n") == 1
    assert "val 1,500, train 2: 1,502 boxes are tiny" in text
    assert headline(findings).endswith("1 error, 2 warnings (1,505 cases).")


def test_no_name_is_cut_and_as_many_short_ones_are_shown_as_fit():
    long = [f"train/{'folder/' * 20}{number}.jpg: is no image" for number in range(9)]
    (finding,) = found(Severity.WARNING, "train", "{n} images are damaged", long, "copy them")
    text = report([finding], 60)
    assert "folder/" * 20 + "2.jpg:" in text and "3.jpg" not in text and "6 more" in text
    (finding,) = found(Severity.WARNING, "train", "{n} classes have no box", list("abcdefgh"), "")
    assert "a; b; c; d; e; f; g; h\n" in report([finding], 60) + "\n"
    (finding,) = found(Severity.WARNING, "train", "{n} annotations are odd", named(40), "")
    ends = [line.strip().rstrip(";") for line in report([finding], 60).splitlines()]
    assert "annotation" not in [line.split()[-1] for line in ends if line], "names stay on a line"


def test_data_without_faults_says_so():
    assert headline([]) == "Nothing is wrong: no errors, no warnings."


def test_warnings_that_differ_in_names_only_are_one_finding():
    findings = []
    with warnings_as_findings("train", findings):
        for number in range(40):
            get_logger().warning("%s: %d odd lines", f"{number}.txt", number)
        get_logger().warning("something else")
    assert [f.count for f in findings] == [40, 1]
    assert findings[0].what == "40 times: ...: ... odd lines"
    assert findings[0].examples[39] == "39.txt: 39 odd lines"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("1 images are missing", "1 image is missing"),
        ("1 boxes have no width or height", "1 box has no width or height"),
        ("1 boxes reach beyond their image", "1 box reaches beyond its image"),
        ("1 images have an EXIF tag and are read as stored", "1 image has an EXIF tag and is read as stored"),
        ("1 annotation ids are listed more than once", "1 annotation id is listed more than once"),
        ("1 entries are invalid", "1 entry is invalid"),
        ("1 classes have no box", "1 class has no box"),
        ("1 pairs of class names differ in one letter", "1 pair of class names differs in one letter"),
        ("11 images are missing", "11 images are missing"),
        ("1 class folders hold no image", "1 class folders hold no image"),
        ("71 of 100 boxes are the same", "71 of 100 boxes are the same"),
    ],
)
def test_one_thing_is_in_the_singular(what, expected):
    assert in_singular(what) == expected


def test_files_are_named_from_the_data_folder_on():
    (finding,) = found(Severity.WARNING, "train", "{n} rows are odd", ["/data/a/labels/1.txt line 3"], "")
    assert "labels/1.txt line 3" in report([finding], 80, folder="/data/a/")
    assert "/data/a" not in report([finding], 80, folder="/data/a/")
