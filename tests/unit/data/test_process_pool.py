"""Results of one process or several: which come, and what becomes of killed workers."""

import os
from contextlib import closing

import pytest

from vesuvius.data.process_pool import as_they_come


def _refuse(item):
    raise AssertionError(f"no process was killed at {item}")


def test_one_process_works_in_order_and_no_further_than_asked():
    seen = []
    with closing(as_they_come(seen.append, "abc", num_jobs=1, if_killed=_refuse)) as results:
        next(results)
        next(results)
    assert seen == ["a", "b"]


def test_two_processes_give_every_result():
    found = as_they_come(abs, [-1, 2, -3], num_jobs=2, if_killed=_refuse)
    assert sorted(found) == [1, 2, 3]


def test_an_item_whose_process_dies_gets_the_result_for_it():
    found = as_they_come(os._exit, [7, 8], num_jobs=2, if_killed=str)
    assert sorted(found) == ["7", "8"]


def test_an_error_is_passed_on():
    with pytest.raises(TypeError, match="bad operand type"):
        list(as_they_come(abs, ["a", "b"], num_jobs=2, if_killed=_refuse))
