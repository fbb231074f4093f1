"""Push and pull with the real huggingface_hub, against a Hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import read_checkpoint
from tests.hub_server import TOKEN, Hub, Repository, running_hub
from tests.inference.tiny import make_checkpoint
from tests.source_files import ROOT
from tools.publish import main as publish
from util.hub import CONTENT, WEIGHTS

pytestmark = pytest.mark.ci

RESOLVE = """
import sys
from util.errors import UserError
from util.hub import resolve
for address in sys.argv[1:]:
    try:
        print("file", resolve(address))
    except UserError as error:
        print("error", error)
"""


@pytest.fixture
def hub():
    with running_hub() as running:
        yield running


@pytest.fixture
def folder(tmp_path) -> Path:
    """A published model."""
    path = make_checkpoint(tmp_path / "checkpoint.pth")
    publish([str(path), "--output", str(tmp_path / "cups"), "--license", "apache-2.0"])
    return tmp_path / "cups"


def run(hub: Hub, home: Path, *words: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """A program in an environment of its own; it has no token unless HF_TOKEN is given."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    # Xet is the Hub's own storage service; this one speaks the older LFS.
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**clean, **own, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def resolved(hub: Hub, home: Path, *addresses: str, **environment: str) -> list[str]:
    done = run(hub, home, "-c", RESOLVE, *addresses, **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(addresses), done.stdout
    return lines


def test_what_is_pushed_comes_back(hub, folder, tmp_path):
    words = ("tools/publish.py", folder, "--push", "somebody/cups", "--private")
    done = run(hub, tmp_path / "home", *words, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pushed: hf://somebody/cups\n"
    repository = hub.repositories["somebody/cups"]
    assert repository.private
    (commit,) = repository.commits.values()
    assert {name: (folder / name).read_bytes() for name in (WEIGHTS, CONTENT, "README.md")} == commit
    assert b'richsem("hf://somebody/cups")' in commit["README.md"]

    (line,) = resolved(hub, tmp_path / "other", "hf://somebody/cups", HF_TOKEN=TOKEN)
    pulled = Path(line.removeprefix("file "))
    assert read_checkpoint(pulled).class_names == ["cup", "plate", "urn"]
    assert pulled.with_name(CONTENT).is_file()

    predictions = tmp_path / "predictions"
    image = folder.parent / "image.png"
    from PIL import Image

    Image.new("RGB", (80, 60), "gray").save(image)
    words = ("tools/predict.py", "hf://somebody/cups", image, "--output", predictions, "--score", "0")
    done = run(hub, tmp_path / "other", *words, "--device", "cpu", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert json.loads((predictions / "predictions.json").read_text())[0]["detections"]
    # A second push is a second commit, and the first is still there.
    first = next(iter(repository.commits))
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    assert (
        run(
            hub, tmp_path / "home", "tools/publish.py", folder, "--push", "somebody/cups", HF_TOKEN=TOKEN
        ).returncode
        == 0
    )
    assert len(repository.commits) == 2
    addresses = (f"hf://somebody/cups/README.md@{first}", "hf://somebody/cups/README.md")
    old, new = resolved(hub, tmp_path / "home", *addresses, HF_TOKEN=TOKEN)
    sizes = [Path(line.removeprefix("file ")).stat().st_size for line in (old, new)]
    assert sizes[1] - sizes[0] == len("\nMore.\n")


def test_pulling_what_is_not_there_is_one_line_each(hub, tmp_path):
    files = {"run/last.pth": b"x", "notes.txt": b"y"}
    hub.repositories = {
        "a/open": Repository(commits={"b" * 40: files}),
        "a/gated": Repository(gated=True, commits={"c" * 40: files}),
    }
    lines = resolved(
        hub,
        tmp_path / "home",
        "hf://a/open/run/last.pth",
        "hf://a/absent",
        "hf://a/gated",
        "hf://a/open",
        "hf://a/open/run/lost.pth",
        "hf://a/open/run/last.pth@v9",
    )
    hint = " (you are not logged in: run `hf auth login`, or set HF_TOKEN)"
    assert lines[0].endswith("/run/last.pth")
    assert lines[1:] == [
        f"error hf://a/absent: there is no such model, or it is private{hint}",
        f"error hf://a/gated: access is restricted: ask for it at {hub.url}/a/gated{hint}",
        "error hf://a/open: has no file 'model.safetensors'. It has run/last.pth; the form is "
        "hf://OWNER/NAME[/FILE][@REVISION]",
        "error hf://a/open: has no file 'run/lost.pth'. It has run/last.pth; the form is "
        "hf://OWNER/NAME[/FILE][@REVISION]",
        "error hf://a/open: has no revision 'v9'",
    ]


def test_a_hub_that_stumbles_is_asked_again(hub, tmp_path):
    hub.repositories = {"a/open": Repository(commits={"b" * 40: {"last.pth": b"x"}})}
    hub.down = 2
    (line,) = resolved(hub, tmp_path / "home", "hf://a/open/last.pth")
    assert line.endswith("/last.pth") and hub.requests.count("HEAD /a/open/resolve/main/last.pth") == 3


def test_a_hub_that_is_gone_leaves_the_cache(hub, tmp_path):
    hub.repositories = {"a/open": Repository(commits={"b" * 40: {"last.pth": b"x"}})}
    first = resolved(hub, tmp_path / "home", "hf://a/open/last.pth")
    gone = Hub(url="http://127.0.0.1:9")
    again, other = resolved(gone, tmp_path / "home", "hf://a/open/last.pth", "hf://a/open/other.pth")
    assert [again] == first
    assert other == f"error hf://a/open: other.pth is not in the cache, and {gone.url} cannot be reached"


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("somebody/cups", "", "you are not logged in: run `hf auth login`, or set HF_TOKEN"),
        ("somebody/cups", "hf_wrong", "the Hub refused access (Invalid username or password.)"),
        ("others/cups", TOKEN, "the Hub refused access (You don't have the rights"),
        ("somebody/c..s", TOKEN, "Cannot have -- or .. in repo_id"),
    ],
)
def test_pushing_where_one_may_not_is_one_line(hub, folder, tmp_path, repo, token, message):
    done = run(hub, tmp_path / "home", "tools/publish.py", folder, "--push", repo, HF_TOKEN=token)
    assert done.returncode == 2 and not hub.repositories
    assert done.stderr.startswith(f"error: hf://{repo}: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_metadata_that_the_hub_refuses_stop_before_anything_is_uploaded(hub, tmp_path):
    path = make_checkpoint(tmp_path / "checkpoint.pth")
    publish([str(path), "--output", str(tmp_path / "beer"), "--license", "free-as-in-beer"])
    words = ("tools/publish.py", tmp_path / "beer", "--push", "somebody/beer")
    done = run(hub, tmp_path / "home", *words, HF_TOKEN=TOKEN)
    assert done.returncode == 2 and "Invalid metadata in README.md." in done.stderr
    assert '"license" must be one of [apache-2.0]' in done.stderr and done.stderr.count("\n") == 1
    assert not hub.repositories["somebody/beer"].commits and not hub.blobs


def test_pushing_without_a_network_is_one_line(folder, tmp_path):
    gone = Hub(url="http://127.0.0.1:9")
    done = run(gone, tmp_path / "home", "tools/publish.py", folder, "--push", "a/cups", HF_TOKEN=TOKEN)
    assert done.returncode == 2
    assert done.stderr == "error: hf://a/cups: http://127.0.0.1:9 cannot be reached\n"
