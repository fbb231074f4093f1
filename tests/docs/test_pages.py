"""Every Python and shell block of README.md and docs/*.md runs; a block that cannot is marked `no-test`."""

import re

import pytest

from tests.docs.blocks import SKIP, blocks, pages
from tests.docs.stand_in import run

RUNNABLE = [page for page in pages() if any(block.runs for block in blocks(page))]
LANGUAGES = {"bash", "json", "python", "sh", "shell", "text", "yaml", ""}


@pytest.mark.ci
@pytest.mark.parametrize("page", RUNNABLE)
def test_the_blocks_of_a_page_run_one_after_another(page, checkout):
    done = run(checkout, "python", "-m", "tests.docs.run_page", page)
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("page", pages())
def test_commands_are_in_blocks_that_say_so(page):
    """A command in a block without a language would be neither coloured nor run."""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: language {block.language}"
        assert set(block.marks) <= {SKIP}, f"{page}:{block.line}: marks {block.marks}"
        command = re.search(r"^(\.venv/bin/)?(python|bash|pip) ", block.code, re.MULTILINE)
        assert block.language or not command, f"{page}:{block.line}: write ```bash before a command"


def test_blocks_are_found_with_their_lines(tmp_path):
    text = "# T\n```python\na = 1\n```\n- item\n  ```bash no-test\n  ls\n   cat\n  ```\n```\nplain\n```\n"
    (tmp_path / "page.md").write_text(text)
    found = blocks("page.md", tmp_path)
    assert [(b.line, b.language, b.code, b.runs) for b in found] == [
        (3, "python", "a = 1\n", True),
        (7, "bash", "ls\n cat\n", False),
        (11, "", "plain\n", False),
    ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "```python\nx = 1\n```\n\n```python\nassert x == 1\nx.y\n```\n",
            "page.md:6: AttributeError in line 7",
        ),
        ("```python\nx = (\n```\n", "page.md:2: SyntaxError in line 2"),
        ("```bash\ntrue\ncat /nowhere\necho no\n```\n", "line 3: cat /nowhere\n"),
        ("```bash\nexit 3\n```\n", "page.md:2: status 3"),
        ("```bash no-test\nexit 3\n```\n\n```python\nassert 0\n```\n", "page.md:6: AssertionError"),
    ],
)
def test_a_failure_names_page_and_line(code, message, tmp_path, capfd, monkeypatch):
    from tests.docs import run_page

    (tmp_path / "page.md").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run_page", "page.md"])
    assert run_page.main() == 1
    written = capfd.readouterr()
    assert message in written.out + written.err
    assert "no\n" not in written.out
