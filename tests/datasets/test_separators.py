"""Text files (issue 12, B10): commas that part numbers, commas inside of them, names of columns."""

from typing import Any

import numpy as np
import pytest

from pyg_peft.datasets import ShapeFolder, read_points

read: Any = read_points
open_folder: Any = ShapeFolder


def positions(path, **options) -> list[list[float]]:
    data = read(path, **options)
    return (data.pos.double() + data.origin).tolist()


@pytest.mark.parametrize(
    "line",
    [
        *("1,25;3,5;2,75", "1,25 3,5 2,75", "1,25, 3,5, 2,75", "1,5e3\t3\t4", "-1,5;2;3"),
        *("1,234.5 2,000.1 3.0", "1,234,567;2;3", "1.5,2.5 3.5", "1,234.5 ; 2 ; 3"),
    ],
)
def test_decimal_commas_are_read_when_asked_for_only(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"line 1: .*decimal=',' reads numbers with decimal"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("text", ["1,25;3,5;2,75\n-1;2,5e1;3\n", "1,25 3,5\t2,75\n-1 2,5e1 3\n"])
def test_decimal_commas(tmp_path, text):
    (tmp_path / "a.xyz").write_text(text)
    assert positions(tmp_path / "a.xyz", decimal=",") == [[1.25, 3.5, 2.75], [-1, 25, 3]]
    (tmp_path / "a.xyz").write_text(text.replace("1,25", "1.25"))
    with pytest.raises(ValueError, match="line 1: expected numbers"):
        read(tmp_path / "a.xyz", decimal=",")
    with pytest.raises(ValueError, match=r"'decimal' to be '\.' or ','"):
        read(tmp_path / "a.xyz", decimal=";")


@pytest.mark.parametrize(
    "line", ["1,2,3", "1, 2, 3", "1;2;3", "1 ,2 ,3", "1,2,3,", "1,2,3;", "1.0,2.0 ,3"]
)
def test_separators_that_are_clear(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"{line}\n")
    assert positions(tmp_path / "a.txt") == [[1, 2, 3]]


@pytest.mark.parametrize("line", ["1,,2,3", ";1;2;3", "1;2;;3;", "1 , , 2 , 3"])
def test_an_empty_column_is_no_shorter_line(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match="line 1: expected a number in each column"):
        read(tmp_path / "a.txt")


def test_numbers_as_python_alone_writes_them(tmp_path):
    (tmp_path / "a.txt").write_text("1_0 2 3\n")
    with pytest.raises(ValueError, match="line 1: expected numbers"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("count", ["", "2\n"])
def test_the_header_of_cloudcompare(tmp_path, count):
    path = tmp_path / "a.txt"
    path.write_text(f"//X Y Z R G B Scalar_Label\n{count}1 2 3 255 0 0 7\n4 5 6 0 255 0 8\n")
    data = read(path, ["color", "label"])
    assert data.x.tolist() == [[255, 0, 0, 7], [0, 255, 0, 8]]
    assert read(path, ["a"], columns=["x", "y", "z", *"abcd"]).x.tolist() == [[255], [0]]


def test_a_header_that_counts_other_points(tmp_path):
    (tmp_path / "a.txt").write_text("//X Y Z\n3\n1 2 3\n")
    with pytest.raises(ValueError, match=r"expected 3 points \(got 1 lines\)"):
        read(tmp_path / "a.txt")


def test_a_comment_that_names_no_columns(tmp_path):
    (tmp_path / "a.txt").write_text("// x y z of a scan\n1 2 3 4\n")
    assert read(tmp_path / "a.txt", ["column_3"]).x.tolist() == [[4]]


def test_two_columns_of_one_name(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 5)))
    with pytest.raises(ValueError, match="columns with different names"):
        read(tmp_path / "a.npy", columns=["x", "y", "z", "a", "a"])


def test_decimal_commas_of_a_folder(tmp_path):
    for name in ("a/1.txt", "b/1.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1,25;3,5;2,75\n1,75;3,5;2,75\n")
    with pytest.raises(ValueError, match="decimal=','"):
        open_folder(tmp_path)
    dataset = open_folder(tmp_path, decimal=",", normalize=False)
    assert dataset[1].pos[:, 0].tolist() == [-0.25, 0.25]
    assert dataset.read_args == {"num_points": 1024, "decimal": ","}
