import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from datasets.images.tar_index import open_tar
from tests.source_files import ROOT
from util.errors import UserError

FILES = {f"n01/{i}.JPEG": bytes([i]) * (400 * i) for i in range(1, 8)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing is written to the real cache folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RICHSEM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def write_tar(path: Path, files: dict[str, bytes], format=tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        folder = tarfile.TarInfo("n01")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents(index) -> dict[str, bytes]:
    return {index.names[row]: index.read(row) for row in range(len(index))}


def messages(caplog) -> list[str]:
    found = [r.getMessage() for r in caplog.records]
    caplog.clear()
    return found


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_found_whatever_the_format(tmp_path, format, caplog):
    files = dict(FILES, **{f"{'deep/' * 25}x.jpg": b"long"})
    if format != tarfile.USTAR_FORMAT:
        files |= {f"{'y' * 300}.jpg": b"longer", "n01/\u00fcnl\u00fc.jpg": b"accents"}
    index = open_tar(write_tar(tmp_path / "a.tar", files, format))
    assert contents(index) == files
    assert [index.names[index.find(name)] for name in files] == list(files)
    assert index.find("n01") is None and index.find("") is None and index.find("zzz") is None
    assert index.fault == "" and not messages(caplog)


def test_tars_of_gnu_tar_and_a_name_that_comes_twice(tmp_path):
    folder = tmp_path / "n01"
    folder.mkdir()
    (folder / "x.JPEG").write_bytes(b"first")
    command = ["tar", "-C", tmp_path, "-f", tmp_path / "a.tar"]
    subprocess.run([*command, "-c", "./n01"], check=True)
    (folder / "x.JPEG").write_bytes(b"the second")
    subprocess.run([*command, "-r", "./n01/x.JPEG"], check=True)
    assert contents(open_tar(tmp_path / "a.tar")) == {"n01/x.JPEG": b"the second"}


def test_index_is_stored_and_rebuilt_when_it_does_not_fit(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    stored = tmp_path / "a.tar.index"
    written = stored.read_bytes()
    before = stored.stat().st_mtime_ns
    open_tar(path)
    assert stored.stat().st_mtime_ns == before and not messages(caplog)

    write_tar(path, {"other.jpg": b"1"})
    assert contents(open_tar(path)) == {"other.jpg": b"1"}
    assert messages(caplog) == [f"{stored}: is older than a.tar; rebuilding it"]

    damaged = bytearray(stored.read_bytes())
    damaged[damaged.index(b"other.jpg")] ^= 1
    stored.write_bytes(damaged)
    assert open_tar(path).find("other.jpg") == 0
    (line,) = messages(caplog)
    assert line.startswith(f"{stored}: is damaged (") and line.endswith("); rebuilding it")

    stored.write_bytes(written[: len(written) // 2])
    assert open_tar(path).find("other.jpg") == 0
    assert "is damaged" in messages(caplog)[0]


def test_index_of_another_version_is_rebuilt(tmp_path, caplog, monkeypatch):
    path = write_tar(tmp_path / "a.tar", FILES)
    monkeypatch.setattr("datasets.images.tar_index.VERSION", 0)
    open_tar(path)
    monkeypatch.undo()
    assert contents(open_tar(path)) == FILES
    assert messages(caplog) == [f"{path}.index: is of another version; rebuilding it"]


def test_index_goes_to_the_cache_where_the_folder_cannot_be_written(tmp_path, home, caplog):
    path = write_tar(tmp_path / "a.tar", FILES)
    # Stands in for a folder without permission, which root would not notice.
    (tmp_path / "a.tar.index").mkdir()
    open_tar(path)
    assert len(list((home / ".cache" / "richsem").glob("a.tar-*.index"))) == 1
    assert not list(tmp_path.glob(".a.tar*"))
    home.joinpath(".cache").rename(home / "moved")
    (home / ".cache").write_text("no folder")
    messages(caplog)
    assert contents(open_tar(path)) == FILES
    assert any(m.startswith(f"{path}: its index could not be stored (") for m in messages(caplog))


@pytest.mark.parametrize("cut, fault", [(900, "within 'n01/7.JPEG'"), (11_000, "within 'n01/7.JPEG'")])
def test_truncated_tar_is_named_and_its_whole_members_are_served(tmp_path, caplog, cut, fault):
    path = write_tar(tmp_path / "a.tar", FILES)
    end = open_tar(path).offsets[-1]
    os.truncate(path, end + 10 if cut == 900 else end + 2_000)
    messages(caplog)
    for _ in range(2):  # walked, then from the stored index
        index = open_tar(path)
        assert contents(index) == {k: v for k, v in FILES.items() if k != "n01/7.JPEG"}
        assert fault in index.fault
        assert messages(caplog)[-1] == f"{path}: {index.fault}; using its 6 complete members"


def test_damage_within_a_tar_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    place = int(open_tar(path).offsets[3]) - 512
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 0xFF
    path.write_bytes(content)
    index = open_tar(path)
    assert len(index) == 3 and index.fault == f"byte {place} is not the start of a member"


def test_what_is_no_tar_is_an_error(tmp_path):
    path = tmp_path / "a.tar"
    with pytest.raises(UserError, match=r"a\.tar: No such file"):
        open_tar(path)
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(UserError, match=r"a\.tar: not a tar file"):
        open_tar(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__)
    with pytest.raises(UserError, match=r"a\.tar: is compressed \(gzip\); unpack it"):
        open_tar(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.tar: not a tar file"):
        open_tar(path)


def test_tar_that_is_replaced_while_it_is_indexed_or_read(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", FILES)
    index = open_tar(path)
    assert index.read(0) == FILES["n01/1.JPEG"]
    with open(path, "ab") as file:
        file.write(bytes(512))
    with pytest.raises(UserError, match=r"a\.tar: changed after its members were listed"):
        index.read(0)

    import datasets.images.tar_index as module

    real = module.list_members

    def slow(descriptor, length):
        os.utime(path, ns=(1, 1))
        return real(descriptor, length)

    monkeypatch.setattr(module, "list_members", slow)
    with pytest.raises(UserError, match=r"a\.tar: changed while its members were listed"):
        open_tar(path)


def replaced_alike(path: Path) -> None:
    """Another tar of the same size, time, first, middle and last member."""
    status, names = path.stat(), list(FILES)
    swapped = {**FILES, names[1]: FILES[names[2]], names[2]: FILES[names[1]]}
    write_tar(path, swapped)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def test_an_index_of_another_tar_never_gives_wrong_bytes(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    replaced_alike(path)
    index = open_tar(path)
    assert index.read(0) == FILES["n01/1.JPEG"]
    with pytest.raises(UserError, match=r"a\.tar: its stored index .* another tar \(n01/2\.JPEG has moved"):
        index.read(1)
    assert not Path(f"{path}.index").exists(), "or the next start would use it again"
    assert len(open_tar(path).read(1)) == 1200


def test_an_index_travels_with_its_tar(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    (tmp_path / "elsewhere").mkdir()
    for file in (path, Path(f"{path}.index")):
        shutil.copy2(file, tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere" / "a.tar.index").stat().st_mtime_ns
    assert contents(open_tar(tmp_path / "elsewhere" / "a.tar")) == FILES
    assert (tmp_path / "elsewhere" / "a.tar.index").stat().st_mtime_ns == before and not messages(caplog)


def parts_of(index: Path) -> dict[str, np.ndarray]:
    with np.load(index) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.pop("sizes"),
        lambda parts: parts.update(offsets=parts["offsets"] + 512),
        lambda parts: parts.update(name_offsets=parts["name_offsets"][::-1].copy()),
        lambda parts: parts.update(offsets=parts["offsets"].astype(float)),
        lambda parts: parts.update(about=np.frombuffer(b"[]", np.uint8)),
        lambda parts: parts.update(about=np.frombuffer(b'{"version": 3}', np.uint8)),
        lambda parts: parts.update(order=parts["order"][:2]),
    ],
)
def test_a_forged_index_is_rebuilt(tmp_path, caplog, change):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    parts = parts_of(Path(f"{path}.index"))
    change(parts)
    with open(f"{path}.index", "wb") as file:
        np.savez(file, about=parts.pop("about"), **parts)
    assert contents(open_tar(path)) == FILES
    assert messages(caplog)[0].startswith(f"{path}.index: is damaged (")


def test_an_index_that_unpacks_to_more_is_not_unpacked(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    parts = parts_of(Path(f"{path}.index"))
    parts["names"] = np.zeros(2**27, np.uint8)
    with open(f"{path}.index", "wb") as file:
        np.savez_compressed(file, about=parts.pop("about"), **parts)
    tracemalloc.start()
    assert contents(open_tar(path)) == FILES
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert "its parts are compressed" in messages(caplog)[0]


def test_members_whose_names_lead_out_of_the_tar_are_skipped(tmp_path):
    outside = {"../a.jpg": b"1", "/etc/b.jpg": b"2", "n01/../../c.jpg": b"3"}
    index = open_tar(write_tar(tmp_path / "a.tar", {**outside, "n01/..d.jpg": b"4", "e..jpg": b"5"}))
    assert contents(index) == {"n01/..d.jpg": b"4", "e..jpg": b"5"}
    assert index.fault == "3 members whose names lead out of it skipped (first: '../a.jpg')"


def test_spawned_workers_and_threads_may_have_it(tmp_path):
    index = open_tar(write_tar(tmp_path / "a.tar", FILES))
    assert contents(pickle.loads(pickle.dumps(index))) == FILES
    # A thousand of them do not keep a thousand files open.
    paths = [write_tar(tmp_path / f"{i}.tar", {"x": b"1"}) for i in range(150)]
    kept = [open_tar(path) for path in paths]
    assert all(index.read(0) == b"1" for index in kept)
    if sys.platform == "linux":
        assert sum("tar" in os.path.realpath(f) for f in Path("/proc/self/fd").iterdir()) <= 130


def test_a_tar_of_the_same_size_and_time_is_told_by_its_last_header(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", {"x.jpg": b"1"})
    status = path.stat()
    open_tar(path)
    write_tar(path, {"y.jpg": b"2"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents(open_tar(path)) == {"y.jpg": b"2"}
    assert messages(caplog) == [f"{path}.index: is older than a.tar; rebuilding it"]


def test_a_member_of_which_less_is_there_is_an_error(tmp_path):
    index = open_tar(write_tar(tmp_path / "a.tar", FILES))
    index.sizes[-1] = 1 << 20  # as of a disk that gives less than was asked for
    with pytest.raises(OSError, match=r"has only \d+ of its 1048576 bytes"):
        index.read(len(index) - 1)


def test_without_a_home_folder_tars_are_opened(tmp_path, monkeypatch, caplog):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    path = write_tar(tmp_path / "a.tar", FILES)
    assert contents(open_tar(path)) == FILES
    (tmp_path / "a.tar.index").unlink()
    (tmp_path / "a.tar.index").mkdir()
    messages(caplog)
    assert contents(open_tar(path)) == FILES
    assert any("its index could not be stored" in m for m in messages(caplog))


def test_the_index_of_another_program_is_left(tmp_path, home, caplog):
    path = write_tar(tmp_path / "a.tar", FILES)
    other = tmp_path / "a.tar.index"
    other.write_bytes(b"SQLite format 3\0" + bytes(100))
    assert contents(open_tar(path)) == FILES
    assert other.read_bytes().startswith(b"SQLite")
    assert messages(caplog) == [f"{other}: not an index written by RichSem; leaving it as it is"]
    assert len(list((home / ".cache" / "richsem").glob("a.tar-*.index"))) == 1


def test_whatever_damage_of_an_index_leads_to_it_is_rebuilt(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    open_tar(path)
    stored = tmp_path / "a.tar.index"
    written = stored.read_bytes()
    directory = written.rindex(b"PK\x01\x02")
    # Of the last entry: a newer zip than Python reads, encryption, an unknown compression.
    for place, value in ((6, 255), (8, 1), (10, 99)):
        damaged = bytearray(written)
        damaged[directory + place] = value
        stored.write_bytes(damaged)
        assert contents(open_tar(path)) == FILES
        assert stored.read_bytes() != bytes(damaged)


def test_what_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(UserError, match=r"a\.tar: Is a directory"):
        open_tar(tmp_path / "a.tar")


def test_two_ranks_may_build_at_once(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    code = "import sys; from datasets.images.tar_index import open_tar; print(len(open_tar(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(path)]
    ranks = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [rank.communicate()[0] for rank in ranks] == ["7\n"] * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "a.tar.index"]
