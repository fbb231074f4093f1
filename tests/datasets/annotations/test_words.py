import pytest

from datasets.annotations.categories import Category
from datasets.annotations.words import match_words, read_words
from util.errors import UserError


def test_a_list_a_file_and_a_sequence_are_the_same_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffoat milk\r\n\r\n  zucchini \r\ncafé, black\n".encode())
    assert read_words(str(path)) == read_words(path) == ("oat milk", "zucchini", "café, black")
    assert (
        read_words("oat milk, zucchini") == read_words(["oat milk", " zucchini"]) == ("oat milk", "zucchini")
    )
    assert read_words("cat") == ("cat",)


def test_unfit_words_are_one_line(tmp_path):
    def message(given) -> str:
        with pytest.raises(UserError) as caught:
            read_words(given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message("a,,b") == "names: word 2 of 3 is empty"
    assert message(["a", " "]) == "names: word 2 of 2 is empty"
    assert message("") == message(" , ") == message([]) == "names: has no words"
    assert "absent.txt: cannot be read (No such file" in message("absent.txt")
    (tmp_path / "empty.txt").write_text(" \n\n")
    assert "empty.txt is empty" in message(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    assert "latin.txt: line 1: byte 4 of the file, 0xe9, is not UTF-8" in message(str(tmp_path / "latin.txt"))


CLASSES = ("courgette", "cured_goat_cheese", "oat_milk", "HotDog", "mug")


def test_a_word_names_a_class_by_any_spelling_or_synonym():
    words = ("Oat-Milk", "hot dog", "zucchini", "chevre", "milk", "mug")
    assert match_words(words, CLASSES) == (2, 3, 0, -1, -1, 4)
    known = [Category(9, "cured_goat_cheese", synonyms=("goat_cheese", "chevre"))]
    assert match_words(words, CLASSES, known) == (2, 3, 0, 1, -1, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zucchini", "cat", "Courgette"), "'zucchini' and 'Courgette' both mean class 'courgette'"),
        (("tin_can", "tin can"), "'tin_can' and 'tin can' both mean one class"),
        (("cellphone", "mobile_phone"), "'cellphone' and 'mobile_phone' both mean one class"),
    ],
)
def test_two_words_for_one_class_are_named(words, message):
    with pytest.raises(UserError, match=message):
        match_words(words, CLASSES)


def test_a_word_for_two_classes_is_named():
    known = [Category(1, "salmon_(fish)", synonyms=("salmon",)), Category(2, "lox", synonyms=("salmon",))]
    with pytest.raises(UserError, match=r"'salmon' may mean 'salmon_\(fish\)', 'lox': use one of these"):
        match_words(["salmon"], ["salmon_(fish)", "lox"], known)
    assert match_words(["salmon (fish)", "lox"], ["lox", "salmon_(fish)"], known) == (1, 0)
