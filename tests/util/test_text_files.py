"""One reader for the text files of users: what it takes, and what it says of the rest."""

import pytest

from util.errors import UserError
from util.text_files import read_lines, read_text, stream_lines

LINES = ["rot", "", "grün \u2028 blau\x85", "  \u8f66 "]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_the_lines_are_the_same_in_every_encoding_and_with_every_line_end(tmp_path, encoding, newline, last):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path = tmp_path / "a.txt"
    path.write_bytes((mark + newline.join(LINES) + (newline if last else "")).encode(encoding))
    assert read_lines(path) == LINES
    assert [line.rstrip("\n") for line in stream_lines(path)] == LINES
    assert read_text(path) == "\n".join(LINES) + ("\n" if last else "")


def test_an_empty_file_has_no_lines(tmp_path):
    path = tmp_path / "a.txt"
    for content in (b"", b"\xef\xbb\xbf", b"\xff\xfe"):
        path.write_bytes(content)
        assert read_lines(path) == list(stream_lines(path)) == [] and read_text(path) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"red\r\n\xba\xec\r\n", r"line 2: byte 6 of the file, 0xba, is not UTF-8; save the file as UTF-8"),
        (b"caf\xe9", r"line 1: byte 4 of the file, 0xe9, is not UTF-8"),
        (b"a\r\xffb", r"line 2: byte 3 of the file, 0xff"),
        ("grü".encode()[:-1], r"line 1: byte 3 of the file, 0xc3"),
        (b"\xef\xbb\xbfab\n\xff", r"line 2: byte 7 of the file, 0xff"),
        (b"\xff\xfea\0\0\xd8", r"line 1: byte 5 of the file is not UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a text file"),
        (b"red\nbl\0ue\n", r"not a text file \(a zero byte in line 2\)"),
        ("red\n".encode("utf-32"), r"not a text file \(a zero byte in line 1\)"),
        ("red\n".encode("utf-16-le"), r"not a text file \(a zero byte in line 1\)"),
    ],
)
def test_what_is_no_text_is_one_line_with_file_and_place(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    for read in (read_text, lambda path: list(stream_lines(path))):
        with pytest.raises(UserError, match=rf"classes\.txt: .*{message}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_byte_far_into_a_stream_is_named_by_its_place(tmp_path):
    path = tmp_path / "large.csv"
    before = "häuschen,1\n".encode() * 200_000
    path.write_bytes(before + b"\xe9\n")
    place = rf"line 200001: byte {len(before) + 1} of the file, 0xe9"
    with pytest.raises(UserError, match=place):
        read_text(path)
    with pytest.raises(UserError, match=place):
        list(stream_lines(path))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "large.txt").write_bytes(b"x" * 40)
    with pytest.raises(UserError, match=r"large\.txt: has more than 0 MiB"):
        read_text(tmp_path / "large.txt", largest=39)
    for path in (tmp_path, tmp_path / "absent.txt", tmp_path / "a\0b", tmp_path / ("n" * 5000)):
        for read in (read_lines, lambda path: list(stream_lines(path))):
            with pytest.raises(UserError, match="cannot be read") as caught:
                read(path)
            assert len(str(caught.value)) < 500
