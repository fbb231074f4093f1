"""Checksums: those that a zip of torch carries, and one of our own for tensors elsewhere."""

from __future__ import annotations

import errno
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_PIECE = 1 << 20


class ChecksumError(Exception):
    """The content of a file is not what was written."""


def check_zip(path: Path) -> bool:
    """Reads every record of a zip that torch wrote, and compares it with its CRC32, which torch does not.

    False where nothing can be compared: the file is no zip (torch's format before 1.6), or it was written
    with `torch.serialization.set_crc32_options(False)`. Raises ChecksumError for damage anywhere, and OSError
    where the disk does not give the file.
    """
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if all(record.CRC == 0 for record in records):
                return False
            if sum(record.file_size for record in records) > path.stat().st_size:
                raise ChecksumError  # records that overlap could take any time
            for record in records:
                _check_record(archive, record)
    except ChecksumError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ChecksumError from error  # a damaged offset leads before the start of the file
    except Exception as error:  # by kind of damage: of the zip's structure, its names, numbers or flags
        raise ChecksumError from error
    return True


def _check_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    """torch stores records as they are; one that is compressed could unpack to any size."""
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise ChecksumError
    with archive.open(record) as file:
        while file.read(_PIECE):
            pass


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256, in hex, of a text and of all tensors: names, types, shapes and values."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
