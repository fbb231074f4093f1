"""What tars hold beside plain files, and headers that are damaged."""

import io
import os
import subprocess
import tarfile

import pytest

from datasets.images.tar_headers import list_members


def listed(path):
    """(name -> content, faults)"""
    content = path.read_bytes()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        listing = list_members(descriptor, len(content))
    finally:
        os.close(descriptor)
    return {n: content[m.offset : m.offset + m.size] for n, m in listing.members.items()}, listing.faults


def info(name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, io.BytesIO(content)


def write(path, *members, format=tarfile.GNU_FORMAT, **options):
    with tarfile.open(path, "w", format=format, **options) as file:
        for member in members:
            file.addfile(*member)
    return path


def raw(name, size=b"00000000001\0", kind=b"0", content=b"1"):
    """A member with any size field and a right checksum."""
    header = bytearray(tarfile.TarInfo(name).tobuf())
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", f"{'deep/' * 40}a.jpg"])
def test_hard_links_have_the_content_of_what_they_name(tmp_path, format, name):
    link = info("link.jpg", type=tarfile.LNKTYPE, linkname=name)
    lost = info("lost.jpg", type=tarfile.LNKTYPE, linkname="nowhere.jpg")
    soft = info("soft.jpg", type=tarfile.SYMTYPE, linkname=name)
    path = write(tmp_path / "a.tar", info(name, b"abc"), link, lost, soft, info("b.jpg", b"b"), format=format)
    found, faults = listed(path)
    assert found == {name.removeprefix("./"): b"abc", "link.jpg": b"abc", "b.jpg": b"b"}
    assert len(faults) == 2
    assert faults[0].startswith(
        "1 hard links to members that do not precede them skipped (first: 'lost.jpg')"
    )
    assert faults[1].startswith("1 symbolic links") and "(first: 'soft.jpg')" in faults[1]


def test_links_of_gnu_tar_and_a_size_that_a_link_has(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    os.link(tmp_path / "a", tmp_path / "b")
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "x.tar", "./a", "./b"], check=True)
    assert listed(tmp_path / "x.tar") == ({"a": b"abc", "b": b"abc"}, [])
    # Some archivers write the size of the content that is not there.
    link = bytearray(raw("c", b"00000001000\0", b"1", b""))
    link[157:158], link[148:156] = b"a", b" " * 8
    link[148:156] = b"%06o\0 " % sum(link)
    path = tmp_path / "y.tar"
    path.write_bytes(raw("a") + link + raw("d") + bytes(1024))
    assert listed(path) == ({"a": b"1", "c": b"1", "d": b"1"}, [])


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.1", "pax --sparse-version=1.0"])
def test_sparse_members_are_stepped_over_and_named(tmp_path, form):
    with open(tmp_path / "sparse", "wb") as file:
        for block in range(60):  # more islands than one header has room for
            file.seek(block << 16)
            file.write(b"x" * 4096)
    (tmp_path / "z").write_bytes(b"after")
    command = ["tar", "-C", tmp_path, "-S", "-H", *form.split(), "-cf", tmp_path / "a.tar", "sparse", "z"]
    subprocess.run(command, check=True)
    found, faults = listed(tmp_path / "a.tar")
    assert found == {"z": b"after"}
    assert len(faults) == 1 and faults[0].startswith("1 sparse members")
    assert faults[0].endswith("(first: 'sparse')")


def test_a_second_tar_behind_the_end_mark_is_named(tmp_path):
    first, second = (write(tmp_path / n, info(n, b"1")).read_bytes() for n in "ab")
    path = tmp_path / "both.tar"
    path.write_bytes(first + second)
    assert listed(path) == ({"a": b"1"}, ["goes on after its end mark at byte 1024"])


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (raw("b", b"zzz".ljust(12, b"\0")), "byte 1024: its size is not a number"),
        (raw("b", b"-0000001000\0"), "byte 1024: its size is not a number"),
        (raw("b", b"\xff" * 12), "byte 1024: its size is not a number"),
        (raw("b", b"%011o\0" % 12, b"x", b"12 size=abc\n"), "byte 1024: its extended header is damaged"),
        (raw("b", b"%011o\0" % 13, b"x", b"13 size=-512\n"), "byte 1024: its extended header is damaged"),
        (raw("b", b"%011o\0" % 9, b"x", b"0 path=b\n"), "byte 1024: its extended header is damaged"),
        (raw("b", b"%011o\0" % 9, b"x", b"-9 path=b"), "byte 1024: its extended header is damaged"),
    ],
)
def test_headers_that_are_damaged_are_named(tmp_path, member, fault):
    path = tmp_path / "a.tar"
    path.write_bytes(raw("a") + member + raw("c") + bytes(1024))
    assert listed(path) == ({"a": b"1"}, [fault])


def test_names_that_are_no_utf8_stay_apart(tmp_path):
    path = write(tmp_path / "a.tar", info("\xe4.jpg", b"1"), info("\xf6.jpg", b"2"), encoding="latin-1")
    assert listed(path) == ({"\\xe4.jpg": b"1", "\\xf6.jpg": b"2"}, [])
