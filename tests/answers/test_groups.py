"""Groups of candidates."""

import threading

from asearch.answers import Group, group


def test_order_and_representative():
    groups = group(["x=1", "0.5", None, "1", r"\frac12", "", "  ", "2"])
    assert groups == [Group("x=1", (0, 3)), Group("0.5", (1, 4)), Group("2", (7,))]


def test_no_answers():
    assert group([]) == []
    assert group([None, "", "\n"]) == []


def test_a_line_links_what_it_is_known_as():
    """Transitive by construction: both belong with y=2x+3, hence together."""
    assert [g.members for g in group(["2x+3", "2x-y+3=0", "y=2x+3"])] == [(0, 1, 2)]
    assert [g.members for g in group(["2x+3", "2x-y+3=0"])] == [(0,), (1,)]


def test_unreadable_answers_group_by_their_text():
    assert [g.members for g in group([r"\heartsuit 5", r"\heartsuit  5", r"\spadesuit 5"])] == [(0, 1), (2,)]


def test_from_a_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(group([r"\frac{6}{8}", "3/4", r"\frac{1}{\sqrt 3}", r"\frac{\sqrt3}{3}"]))
    )
    thread.start()
    thread.join()
    assert [g.members for g in found] == [(0, 1), (2, 3)]
