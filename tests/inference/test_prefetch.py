import threading

import pytest

from inference.prefetch import prefetched


def test_the_same_items_in_the_same_order_a_few_ahead():
    made, third = [], threading.Event()

    def items():
        for i in range(5):
            made.append(i)
            if i == 2:
                third.set()
            yield i

    found = prefetched(items(), 2)
    assert next(found) == 0 and third.wait(10)
    assert made == [0, 1, 2], "two ahead of the one in use"
    assert list(found) == [1, 2, 3, 4]
    assert list(prefetched([], 3)) == []


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("broken")

    found = prefetched(items(), 4)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
