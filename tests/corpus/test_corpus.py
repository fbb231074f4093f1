"""What broke a reader once is read, or refused with the right line, for ever."""

import warnings

import pytest

from tests.corpus.entries import CORPUS
from tests.fuzz import images as images  # more readers
from tests.fuzz import layouts as layouts
from tests.fuzz.readers import READERS
from tests.network import asked as asked  # a fixture
from util.errors import UserError


@pytest.mark.parametrize("name", CORPUS)
def test_it_is_read_or_refused_as_it_should_be(name, tmp_path, monkeypatch, asked):
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    entry = CORPUS[name]
    reader = READERS[entry.reader]
    folder = tmp_path / "input"
    folder.mkdir()
    right = None
    if reader.exact:
        (folder / reader.name).write_bytes(reader.whole(folder))
        right = reader.use(folder / reader.name)
    else:
        reader.whole(folder)  # the files beside it
    (folder / reader.name).write_bytes(entry.content())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if entry.says is None:
            assert reader.use(folder / reader.name) == right
        else:
            with pytest.raises(UserError) as caught:
                reader.use(folder / reader.name)
            message = str(caught.value)
            assert entry.says in message and "\n" not in message and len(message) < 1500
    assert asked == []
