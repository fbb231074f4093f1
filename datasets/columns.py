"""Ragged lists and strings as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths in one array: row i is values[offsets[i] : offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) int64."""
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> np.ndarray:
        """(values,) int64: the row that each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def select(self, keep: np.ndarray) -> Ragged:
        """The rows where `keep`, (rows,) bool, is True."""
        return Ragged(self.values[keep[self.row_of_value]], offsets_of(self.lengths[keep]))

    def distinct(self) -> tuple[Ragged, np.ndarray]:
        """The rows, each once, and (rows,) int32: which of them each row is."""
        number_of: dict[bytes, int] = {}
        first: list[int] = []
        numbers = np.empty(len(self), np.int32)
        for row in range(len(self)):
            number = number_of.setdefault(self[row].tobytes(), len(first))
            if number == len(first):
                first.append(row)
            numbers[row] = number
        lengths = self.lengths[first]
        values = np.concatenate([self.values[:0], *(self[row] for row in first)])
        return Ragged(values, offsets_of(lengths)), numbers

    @classmethod
    def from_rows(cls, rows: np.ndarray, values: np.ndarray, count: int) -> Ragged:
        """Groups `values` by `rows` (0..count-1), keeping their order within a row."""
        order = np.argsort(rows, kind="stable")
        return cls(values[order], offsets_of(np.bincount(rows, minlength=count)))


@dataclass(frozen=True)
class PackedStrings:
    """Many strings in one byte array: no Python objects whose reference counts unshare pages in workers."""

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    @classmethod
    def pack(cls, strings: list[str]) -> PackedStrings:
        """From Python strings, UTF-8."""
        encoded = [s.encode() for s in strings]
        lengths = np.fromiter((len(e) for e in encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets_of(lengths))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """(rows,) lengths -> (rows + 1,) int64 offsets, the first 0."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
