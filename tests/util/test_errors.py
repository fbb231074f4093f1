from util.errors import listed, nearest


def test_names_the_nearest_choice():
    assert nearest("lr_bakbone", ["lr", "lr_backbone", "epochs"]) == " Did you mean 'lr_backbone'?"


def test_says_nothing_when_nothing_is_near():
    assert nearest("zzz", ["lr", "epochs"]) == ""
    assert nearest("lr", []) == ""


def test_lists_the_first_and_the_number_of_the_others():
    assert listed(["a", 2], 2) == "a, 2"
    assert listed(["a", "b", "c", "d"], 1, "; ") == "a and 3 more"
    assert listed(["a", "b"], 2, count=7) == "a, b and 5 more"
    assert listed([], 2) == ""
