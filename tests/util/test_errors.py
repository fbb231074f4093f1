from util.errors import nearest


def test_names_the_nearest_choice():
    assert nearest("lr_bakbone", ["lr", "lr_backbone", "epochs"]) == " Did you mean 'lr_backbone'?"


def test_says_nothing_when_nothing_is_near():
    assert nearest("zzz", ["lr", "epochs"]) == ""
    assert nearest("lr", []) == ""
