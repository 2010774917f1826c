"""Tables of scores, whatever the task calls them."""

from research.common.console import class_table


def rows(scores):
    table = class_table(scores)
    return table and ([column.header for column in table.columns], [list(column.cells) for column in table.columns])


def test_scores_by_class_are_a_table_of_their_own_names():
    scores = {
        "f1": 0.5, "rouge/a": 0.25, "support/a": 12.0, "rouge/b/c": 1.0, "support/b/c": 1.0, "other/b/c": 0.125,
    }  # fmt: skip
    header, columns = rows(scores)
    assert header == ["class", "rouge", "support", "other"]
    assert columns == [["a", "b/c"], ["0.2500", "1.0000"], ["12", "1"], ["", "0.1250"]]


def test_a_task_without_classes_has_no_table():
    assert rows({"f1": 0.5, "loss": 2.0}) is None
