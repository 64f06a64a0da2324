"""Files that claim more than they hold (issue 12, A4): an error, before memory or time is taken."""

import contextlib
import importlib
import io
import os
import resource
import struct
import traceback
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_peft.datasets import NpzShapes, ScanObjectNN, read_points
from pyg_peft.datasets.formats import claims, las_header

read: Any = read_points


def refusal(path: Path, reader: Any = read_points) -> str:
    """What a process of its own says to the file; fails if it aborts, hangs or takes it.

    It is a fork, so that nothing is imported anew, with a gigabyte and 60 seconds to take.
    """
    for package in ("laspy", "plyfile"):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
            resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
            try:
                answer = f"taken: {reader(str(path))}"
            except ValueError as error:
                answer = f"refused: {error}"
            except BaseException:
                answer = traceback.format_exc()
            os.write(writing, answer.encode()[:4096])  # as much as a pipe holds at once
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"ended with {status}: {answer}"
    assert answer.startswith(f"refused: Expected '{path}'"), answer
    return answer


def write_las(path: Path, version: str = "1.2", point_format: int = 3, size: int = 20) -> bytearray:
    laspy = pytest.importorskip("laspy")
    if path.suffix == ".laz":
        pytest.importorskip("lazrs")
    header = laspy.LasHeader(point_format=point_format, version=version)
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = np.random.default_rng(0).normal(size=(3, size)) * 100
    cloud.write(str(path))
    return bytearray(path.read_bytes())


def test_a_laz_of_billions_of_chunks(tmp_path):
    path = tmp_path / "a.laz"
    content = write_las(path)
    (start,) = struct.unpack_from("<I", content, 96)
    (table,) = struct.unpack_from("<q", content, start)
    struct.pack_into("<I", content, table + 4, 0xFFFFFFFF)
    path.write_bytes(content)
    assert "of 1 to" in refusal(path)


def test_a_laz_with_damaged_sizes(tmp_path):
    """Points, chunk size, and the place of the table: each an error that names it."""
    path = tmp_path / "a.laz"
    content = write_las(path)
    (start,) = struct.unpack_from("<I", content, 96)
    record = content.index(b"laszip encoded") - 2 + 54
    for place, kind, value, match in (
        (107, "<I", 0xFFFFFFFF, "the points to take at most 100 times"),
        (107, "<I", 60_000, "with 60000 points together"),
        (record + 12, "<I", 0, "chunks of 0 points"),
        (record + 36, "<H", 3, "items of"),
        (start, "<q", 2**40, "the table of chunks"),
    ):
        damaged = bytearray(content)
        struct.pack_into(kind, damaged, place, value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"a.laz' to be a readable .laz file .*{match}"):
            read(path)


def test_a_laz_of_layers_with_damaged_sizes(tmp_path):
    path = tmp_path / "a.laz"
    content = write_las(path, "1.4", 6)
    (start,) = struct.unpack_from("<I", content, 96)
    struct.pack_into("<I", content, start + 8 + 30 + 4, 0xFFFFFFF0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected layers of"):
        read(path)


@pytest.mark.parametrize("ending", [".las", ".laz"])
def test_a_las_of_billions_of_records(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    content = write_las(path)
    struct.pack_into("<I", content, 100, 0xFFFFFFFF)
    path.write_bytes(content)
    assert "4294967295 records" in refusal(path)


def test_a_las_of_more_extended_records_and_points_than_it_holds(tmp_path):
    path = tmp_path / "a.las"
    content = write_las(path, "1.4", 6)
    for place, kind, value, match in (
        (243, "<I", 0xFFFFFFFF, "4294967295 extended records"),
        (247, "<Q", 2**50, "points of 30 bytes"),
        (247, "<Q", 21, "expected 21 points of 30 bytes"),
        (96, "<I", 2**31, "points behind it"),
    ):
        damaged = bytearray(content)
        struct.pack_into(kind, damaged, place, value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=match):
            read(path)


def test_a_laz_is_read_in_a_forked_process(tmp_path):
    """Threads of a decompressor are lost in a fork; a data loader's worker then never answered."""
    write_las(tmp_path / "a.laz")
    read(tmp_path / "a.laz")
    process = os.fork()
    if process == 0:
        read(tmp_path / "a.laz")
        os._exit(7)
    for _ in range(600):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            break
        __import__("time").sleep(0.1)
    else:
        os.kill(process, 9)
        os.waitpid(process, 0)
        pytest.fail("the forked process hangs")
    assert os.waitstatus_to_exitcode(status) == 7


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize("name", ["xyz", "pos"])
def test_an_archive_of_a_shape_that_it_does_not_hold(tmp_path, name):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", header((2**50, 3)) + bytes(24))
    reader = NpzShapes if name == "xyz" else read_points
    assert "(1125899906842624, 3)" in refusal(path, reader).replace("[", "(").replace("]", ")")


@pytest.mark.parametrize("reader", [read_points, NpzShapes])
def test_an_archive_that_becomes_a_thousand_times_as_long(tmp_path, reader):
    path = tmp_path / "a.npz"
    size = 24_000_000
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("pos.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size, 3)))
        for _ in range(24):
            member.write(bytes(size))
    assert path.stat().st_size < 2**20
    assert "at most 100 times" in refusal(path, reader)


def test_what_is_small_may_be_as_constant_as_it_likes(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", pos=np.zeros((10_000, 3)), label=np.zeros(10_000))
    assert len(read(tmp_path / "a.npz").pos) == 10_000


def test_the_limit_of_expansion():
    claims.check_expansion(2**28, 1, "it")
    claims.check_expansion(10**12, 10**10, "it")
    with pytest.raises(ValueError, match="expected it to take at most 100 times the 1 bytes"):
        claims.check_expansion(2**28 + 1, 1, "it")


def test_members_that_are_no_arrays_of_an_archive(tmp_path):
    path = tmp_path / "a.npz"
    for method, content in ((zipfile.ZIP_BZIP2, header((0,))), (zipfile.ZIP_STORED, b"text")):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("xyz.npy", content)
        with pytest.raises(ValueError, match=r"a\.npz' to be a readable"):
            NpzShapes(path)


def test_an_array_of_a_shape_that_it_does_not_hold(tmp_path):
    for shape, kind in (((2**50, 3), "<f8"), ((2**50, 3), "<U0"), ((1, 3), "<f8")):
        (tmp_path / "a.npy").write_bytes(header(shape, kind) + bytes(48))
        with pytest.raises(ValueError, match=r"expected the 48 bytes of the file"):
            read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("shape", "kind", "size"), [((-2, -3), "<f8", 48), ((-1, 3), "<f8", 0), ((5, 3), "<U0", 0)]
)
def test_an_array_whose_size_fits_but_whose_shape_is_none(tmp_path, shape, kind, size):
    (tmp_path / "a.npy").write_bytes(header(shape, kind) + bytes(size))
    with pytest.raises(ValueError, match=rf"expected the {size} bytes of the file"):
        read(tmp_path / "a.npy")


def test_a_ply_of_rows_that_it_does_not_hold(tmp_path):
    pytest.importorskip("plyfile")
    start = "ply\nformat {} 1.0\nelement {} {}\nproperty float x\nproperty float y\n"
    end = "property float z\nend_header\n"
    for storage in ("ascii", "binary_little_endian"):
        path = tmp_path / f"{storage}.ply"
        path.write_bytes((start.format(storage, "vertex", 2**40) + end).encode() + bytes(12))
        assert f"got {2**40} rows" in refusal(path)
    path.write_text(f"ply\nformat {storage} 1.0\nelement vertex {2**40}\nend_header\n")
    assert "of 0 properties" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (("POINTS 2", "POINTS -1"), "POINTS not to be negative"),
        (("COUNT 1 1 1", "COUNT 1 1 0"), "COUNT of z to be positive"),
        (("SIZE 4 4 4", "SIZE 4 4 3"), "TYPE and SIZE of z"),
        (("FIELDS x y z", "FIELDS" + " a" * 200_000), "of one length, at most 1024"),
        (("TYPE F F F", "TYPE F F U"), "expected z to hold integers"),
    ],
)
def test_a_pcd_of_fields_that_do_not_fit(tmp_path, changes, match):
    text = (
        "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 2\nDATA ascii\n1 2 3\n4 5 nan\n"
    )
    (tmp_path / "a.pcd").write_text(text.replace(*changes))
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "a.pcd")


@pytest.mark.parametrize("name", ["a.txt", "a.xyz", "a.off", "a.obj"])
def test_a_line_without_end(tmp_path, name):
    (tmp_path / name).write_text("OFF " + "1 " * 2**20)
    with pytest.raises(ValueError, match="line 1: expected at most 1048576 characters"):
        read(tmp_path / name)


def test_an_h5_of_arrays_that_it_does_not_hold(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "main_split"
    folder.mkdir()
    path = folder / "training_objectdataset.h5"
    options: Any = {"variant": "OBJ_BG"}
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (2**40, 2048, 3), "f4", chunks=(1, 2048, 3))
        file["label"] = np.zeros(3)
    with pytest.raises(ValueError, match="'data' to take at most 100 times"):
        ScanObjectNN(tmp_path, **options)
    (tmp_path / "other.h5").write_bytes(b"")
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "data")
        file["label"] = np.zeros(3)
    with pytest.raises(ValueError, match="'data' to be an array of the file itself"):
        ScanObjectNN(tmp_path, **options)


@pytest.mark.parametrize("point_format", [6, 7, 8])
@pytest.mark.parametrize("extra", [False, True])
def test_layers_of_every_kind_are_read(tmp_path, point_format, extra):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=point_format, version="1.4")
    if extra:
        header.add_extra_dim(laspy.ExtraBytesParams(name="height", type=np.float32))
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = np.random.default_rng(0).normal(size=(3, 50)) * 100
    cloud.write(str(tmp_path / "a.laz"))
    assert las_header.is_compressed(tmp_path / "a.laz")
    assert len(read(tmp_path / "a.laz").pos) == 50


def test_an_archive_of_very_many_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(1001):
            archive.writestr(f"{number}.npy", header((0,)))
    with pytest.raises(ValueError, match=r"expected at most 1,000 arrays \(got 1,001\)"):
        NpzShapes(tmp_path / "a.npz")
