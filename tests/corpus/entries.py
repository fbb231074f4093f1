"""Every input that ever broke a reader, by name: made here, since many would be bombs as files.

An entry is the reader of `tests/fuzz/readers.py` that takes it, its content, and what the reader says: a part
of its one line, or None where it reads it.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.datasets import tiny
from tests.fuzz.readers import CONFIG, INFO, LOG, RESULTS


@dataclass(frozen=True)
class Entry:
    reader: str
    content: Callable[[], bytes]
    says: str | None


CORPUS: dict[str, Entry] = {}


def _add(reader: str, **contents: tuple[bytes | str | Callable[[], bytes], str | None]) -> None:
    for name, (content, says) in contents.items():
        made = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        CORPUS[f"{reader}: {name}"] = Entry(reader, made if callable(made) else lambda c=made: c, says)


def _annotations(key: str, change: Callable[[list], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        content = tiny.detection_content(3, "val")[0]
        change(content[key])
        return json.dumps(content).encode()

    return make


_add(
    "annotations",
    null_image=(_annotations("images", lambda rows: rows.append(None)), "image None"),
    null_box=(_annotations("annotations", lambda rows: rows.append(None)), "annotation None"),
    half_a_surrogate=(
        _annotations("images", lambda rows: rows[0].update(file_name="\ud800")),
        "half of a character",
    ),
    half_a_synset=(
        _annotations("categories", lambda rows: rows[0].update(synset="\ud800")),
        "`synset` holds half of a character",
    ),
    count_beyond_64_bits=(
        _annotations("categories", lambda rows: rows[0].update(image_count=2**63)),
        "its `image_count` is",
    ),
    long_frequency=(
        _annotations("categories", lambda rows: rows[0].update(frequency="x" * 5000)),
        "expected r, c or f",
    ),
    name_of_two_lines=(
        _annotations("categories", lambda rows: rows[0].update(name="a\nb")),
        "is no line of text",
    ),
    crowd_as_text=(_annotations("annotations", lambda rows: rows[0].update(iscrowd="no")), "expected 0 or 1"),
    deep=(b"[" * 100_000, "not an object"),
    deep_member=(b'{"images": ' + b"[" * 100_000, "nested too deeply"),
    commas=(b'{"images": [' + b"," * 100_000 + b"]}", "ends early"),
    digits=(b'{"images": [' + b"9" * 5_000 + b"]}", "too many digits"),
    infinite_box=(_annotations("annotations", lambda rows: rows[0].update(bbox=[1e400, 0, 1, 1])), None),
)


def _results(**changes: object) -> str:
    return json.dumps([RESULTS[0], {**RESULTS[1], **changes}])


_FORM = "prediction number 1 ("
_add(
    "predictions_json",
    long_integer=(_results(score=10**400), _FORM),
    long_integer_in_a_box=(_results(bbox=[1, 2, 3, 10**400]), _FORM),
    long_id=(_results(image_id=2**63), _FORM),
    text_for_a_number=(_results(score="0.5"), None),
    word_for_a_number=(_results(score="high"), _FORM),
    texts_for_a_box=(_results(bbox=["1", "2", "3", "4"]), None),
    short_box=(_results(bbox=[1, 2, 3]), _FORM),
    nested_box=(_results(bbox=[[1], [2], [3], [4]]), _FORM),
    null=(json.dumps([RESULTS[0], None]), _FORM),
    number=(json.dumps([RESULTS[0], 5]), _FORM),
    deep=(b"[" * 100_000, "nested too deeply"),
    empty=(b"", "ends early"),
    object=(b"{}", "not a list of predictions"),
)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    ones = {"image_id": np.ones(3, int), "category_id": np.ones(3, int), "score": np.ones(3)}
    np.savez_compressed(buffer, **{**ones, "bbox": np.ones((3, 4)), **arrays})
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_add(
    "predictions_npz",
    bomb=(lambda: _npz(score=np.zeros(1 << 23)), "a zip bomb"),
    a_number=(lambda: _npz(score=np.float64(3)), "not integers of shape (1,)"),
    texts=(lambda: _npz(score=np.array(["a", "b", "c"])), "not numbers"),
    objects=(lambda: _npz(score=np.array([None] * 3)), "not a .npz file"),
    another_format=(lambda: _npy(np.zeros(3)), "not a .npz file"),
)
_add(
    "predictions_npy",
    objects=(lambda: _npy(np.array([None])), "not a .npy file"),
    a_zip=(lambda: _npz(), "a zip of arrays"),
    claims_more=(lambda: _npy(np.zeros(9, np.uint8)).replace(b"(9,)", b"(9e,"), "not a .npy file"),
)


def _zip(name: str, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("aa", content)
    return buffer.getvalue().replace(b"aa", name.encode())


def _zip_without_a_name() -> bytes:
    content = _zip("aa")
    central = content.index(b"PK\x01\x02")
    # The name's two bytes become its extra field.
    return content[: central + 28] + b"\0\0\2\0" + content[central + 32 :]


_add("zip", member_without_a_name=(_zip_without_a_name, None), two_dots=(lambda: _zip(".."), None))


def _tar(name: str, **fields: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        archive.addfile(member)
    return buffer.getvalue()


_add(
    "tar",
    out_of_the_folder=(lambda: _tar("../../x.jpg"), None),
    absolute=(lambda: _tar("/etc/x.jpg"), None),
    link=(lambda: _tar("x.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), None),
)

_YAML = "path: .\ntrain: images/train\n"
_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_add(
    "yolo_yaml",
    mixed_keys=(_YAML + "names: {0: cup, a: urn}\n", "are not 0..1, each once"),
    names_of_a_number=(_YAML + "names: 5\n", "neither a list of class names"),
    billion_laughs=(_LAUGHS + _YAML + "names: *i\n", "aliases"),
    billion_laughs_as_paths=(_LAUGHS + "names: [cup]\ntrain: *i\n", "aliases"),
    billion_laughs_as_the_folder=(_LAUGHS + _YAML + "names: [cup]\npath: *i\n", "aliases"),
    deep=(_YAML + "names: " + "[" * 20_000, "nested too deeply"),
    no_date=(_YAML + "names: [2020-13-45]\n", None),
    code=(_YAML + "names: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    long_path=("names: [cup]\ntrain: " + "x" * 5_000 + "\n", "does not exist"),
    zero_byte_in_a_name=(_YAML + 'names: ["a\\0b"]\n', "is no line of text"),
    zero_byte=('names: [cup]\ntrain: "a\\0b"\n', "does not exist"),
    an_image_for_a_list=("names: [cup]\ntrain: images/train/a.png\n", "is not a text file"),
)
_add("yolo_labels", long_number=("0 0.5 0.5 0.2 " + "9" * 5_000, None), zero_bytes=(b"\0" * 50, None))


def _png_cut_in_its_text() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 50)).save(buffer, "PNG")
    return buffer.getvalue()[:60]


_QUARTER_TURN = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def _image(kind: str, mode: str = "RGB", **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.new(mode, (40, 50)).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


_add(
    "png",
    cut_before_its_orientation=(_png_cut_in_its_text, "does not decode"),
    postscript=(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "does not decode"),
    orientation_beyond_its_block=(_image("PNG", exif=b"MM\0*\xff\xff\xff\xff"), None),
    orientation_of_a_quarter_turn=(_image("PNG", exif=_QUARTER_TURN), None),
)
_add("jpeg", orientation_of_a_quarter_turn=(_image("JPEG", exif=_QUARTER_TURN), None))
_add("webp", orientation_of_a_quarter_turn=(_image("WEBP", exif=_QUARTER_TURN), None))
_add(
    "tiff",
    orientation_of_a_quarter_turn=(_image("TIFF", tiffinfo={0x0112: 6}), None),
    orientation_of_no_kind=(_image("TIFF", tiffinfo={0x0112: 9}), None),
    floating_point=(_image("TIFF", mode="F"), "floating-point numbers"),
    integers_of_32_bits=(_image("TIFF", mode="I"), "32-bit or signed integers"),
)

_add(
    "config_file",
    leaves=("import sys\nsys.exit(7)\n", "SystemExit: 7"),
    recurses=("def f():\n    f()\nf()\n", "RecursionError"),
    holds_itself=("backbone_args = {}\nbackbone_args['x'] = backbone_args\n", "holds itself"),
    many_bases=("_base_ = ['richsem_4scale.py'] * 1000\n", "500 in all"),
    zero_bytes=(b"\0" * 10, "config file"),
    many_queries=(CONFIG + "num_queries = 10**9\n", "must not be above"),
    wide=(CONFIG + "hidden_dim = 10**6 - 10**6 % 32\n", "must not be above"),
    large_images=(CONFIG + "data_aug_scales = [10**5]\n", "must not be above"),
    long_number=(CONFIG + "epochs = 10**5000\n", "beyond 64 bits"),
)
_add(
    "options",
    brackets=("data_aug_scales=" + "[" * 50_000, "--options value"),
    braces=("backbone_args=" + "{'a':" * 3_000 + "1" + "}" * 3_000, "--options value"),
    entries=("backbone_args." + "a." * 5_000 + "b=1", "entries within one another"),
)

_add(
    "words",
    zero_byte=("cup\0\nurn\n", "a zero byte in line 1"),
    control_character=("cup\x01\n", "is no word"),
    long=("x" * 10_000, "is no word"),
    many=("cup\n" * 200_000, "more than 100000"),
    no_text=(b"\xff\xfea", "is not UTF-16"),
    no_utf8=(b"cup\n\xba\xec\n", "line 2: byte 5 of the file, 0xba, is not UTF-8"),
)
_add(
    "image_list",
    zero_byte=("a.jpg\0\n", "a zero byte in line 1"),
    control_character=("a.jpg\x01\n", "is no path"),
    long=("x" * 10_000, "no such image"),
    itself=("images.txt\n", "lists do not hold lists"),
)
_add(
    "dataset_record",
    deep=(b'{"classes":' + b"[" * 100_000, "cannot be read"),
    list=(b"[]", "cannot be read"),
    bytes=(b"\xff" * 9, "cannot be read"),
)


def _info(**changes: object) -> str:
    return json.dumps({**json.loads(INFO.to_json()), **changes})


_add(
    "export_info",
    no_divisor=(_info(size_divisor=0), "no export writes"),
    large_canvas=(_info(canvas=[10**9, 10**9]), "no export writes"),
    no_size=(_info(short_side=-1), "no export writes"),
    two_channels=(_info(mean=[0.0, 0.0]), "no export writes"),
    no_scale=(_info(std=[0.0, 1.0, 1.0]), "no export writes"),
    fewer_names=(_info(class_names=["cup"]), "no export writes"),
    deep=(b"[" * 100_000, "cannot be read"),
)
_line = json.dumps(LOG[0])
_add(
    "run_log",
    not_utf8=(f"{_line}\n".encode() + b"\xff\xfe\n", None),
    a_number=(f"{_line}\n5\n{_line}\n", None),
    torn_middle=(f"{_line}\n{_line[:20]}\n{_line}\n", None),
    zeros=(f"{_line}\n".encode() + b"\0" * 4096, None),
    deep=(f"{_line}\n{'[' * 100_000}\n", None),
)
_add(
    "hub_address",
    line_break=("hf://owner/na\nme", "is no address"),
    long=("hf://owner/" + "x" * 5_000, "is no address"),
    two_revisions=("hf://owner/name@a/file@b", "the form of an address"),
)
_add(
    "published_content",
    deep=(b"[" * 100_000, "cannot be read as JSON"),
    list=(b"[]", "does not describe a checkpoint"),
)
_add(
    "backbone_weights",
    text=(b"hello", "a text file"),
    empty=(b"", "an empty file"),
    cut_zip=(b"PK\x03\x04" + bytes(99), "cut off"),
)
_add("backbone_safetensors", header_beyond_the_file=(b"\xff" * 8 + b"{}", "damaged, or no safetensors"))
_add("pt2", text=(b"hello", "no .pt2 file"), empty=(b"", "no .pt2 file"))
_add("text_cache", empty=(b"", None), not_a_cache=(b"\x08" + bytes(7) + b"{}      ", None))
_add("kernel_library", empty=(b"", None), cut=(bytes(range(256)) * 10, None))
_add("kernel_checksum", empty=(b"", None), binary=(b"\xff" * 64, None))

_LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
_add(
    "voc",
    billion_laughs=(f'<!DOCTYPE x [<!ENTITY a0 "ha">{_LAUGHS}]><annotation>&a9;</annotation>', "DOCTYPE"),
    outside_entity=('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "DOCTYPE"),
    deep=("<a>" * 100_000, "is not valid XML"),
    deep_and_whole=("<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>", None),
    unknown_encoding=('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding"),
    empty=(b"", "is not valid XML (no element found)"),
    zero_byte=(b"<annotation>\0</annotation>", "is not valid XML"),
)

_HEAD = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"
_ROW = "000000000000a0f7,/m/02zt3,"
_add(
    "open_images_boxes",
    empty=(b"", "has no column 'ImageID'"),
    long_field=(_HEAD + _ROW + "9" * 200_000 + ",1,1,1\n", "is no CSV (field larger"),
    long_head=(",".join("x" * 500 for _ in range(50)), "has no column 'ImageID'"),
    zero_byte=(_HEAD + "\0", "a zero byte in line 2"),
    other_encoding=(_HEAD.encode() + b"\xff\n", "is not UTF-8"),
    no_row=(_HEAD, None),
    infinite=(_HEAD + _ROW + "0,1e400,0,1\n", None),
)
