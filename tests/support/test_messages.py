"""A message holds a part as a whole or not at all, in any order, as often as it is asked for."""

import pytest
from messages import holds, refused


@pytest.mark.parametrize("parts", [(8, 3), ("size=8", "(3, 4)"), ("--a.size", 1.5), ("1,009",), (4, 4)])
def test_it_holds(parts):
    assert holds("size=8, not (3, 4): pass --a.size 1.5 or 4 of 1,009", *parts)


@pytest.mark.parametrize("parts", [(3,), (1,), (5,), ("size",), (8, 8)])
def test_it_does_not_hold(parts):
    assert not holds("resize=8, not 13: 1.5 of 1,009 v3", *parts)


def test_what_is_not_refused_or_otherwise_refused_fails():
    for error, parts in [(KeyError, (8,)), (ValueError, (8, 4))]:
        with pytest.raises((AssertionError, ValueError)), refused(error, *parts):
            raise ValueError("8 and 3")
    with pytest.raises(pytest.fail.Exception), refused(ValueError, 8):
        pass
    with refused(ValueError, 3, 8):
        raise ValueError("8 and 3")
