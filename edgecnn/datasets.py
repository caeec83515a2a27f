"""Images whose answers are known: a folder a class, a CSV, or COCO JSON."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgecnn.errors import InputError, MediaError
from edgecnn.metrics import Objects
from edgecnn.spec import ModelSpec
from edgecnn.vision.images import IMAGE_SUFFIXES, list_images, read_image

__all__ = ["Dataset", "open_dataset"]

log = logging.getLogger(__name__)

Truth = TypeVar("Truth", int, Objects)

LABELS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Dataset(Generic[Truth]):
    """Image files and what each shows: a class id, or `Objects` with the model's class ids.

    Iterating gives (frame, truth); frames are uint8 (H, W, 3) BGR, read one at a time.

    Attributes:
        name: Where it came from.
        files: The images.
        truths: One for each image.
        labels: Class names by id where the data names them and the model does not; else empty.
        annotated: Class ids that the data would show (detection): it says nothing of other classes.
    """

    name: str
    files: tuple[Path, ...]
    truths: tuple[Truth, ...]
    labels: tuple[str, ...] = ()
    annotated: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], Truth]]:
        return ((self.frame(i), truth) for i, truth in enumerate(self.truths))

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Read one image.

        Raises:
            MediaError: It is missing, damaged or cut short.
        """
        return read_image(self.files[index])

    def spread(self, count: int) -> Dataset[Truth]:
        """At most so many of the images, taken evenly over all.

        Raises:
            InputError: The count is below 1.
        """
        if count < 1:
            raise InputError(f"limit must be at least 1, not {count}")
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        files, truths = (tuple(items[i] for i in chosen) for items in (self.files, self.truths))
        return replace(self, files=files, truths=truths)


def open_dataset(path: str | os.PathLike[str], spec: ModelSpec) -> Dataset[Any]:
    """Find the images of a dataset and their truths; the images themselves are not opened yet.

    Classification takes a folder with one folder a class, or a ``.csv`` with rows ``file,class``.
    A class is one of the spec's labels or a class id. Where the spec has no labels and not all folders
    are numbers, the classes are the folders in sorted order. Detection takes COCO ``.json``,
    whose categories are matched with the spec's labels by name. Files are relative to the CSV or JSON;
    those of a JSON may also lie in ``images/`` beside it.

    Args:
        path: The folder, CSV or JSON.
        spec: task, labels and background count.

    Returns:
        A `Dataset` of class ids or of `Objects`, by the task.

    Raises:
        MediaError: It is missing, cannot be read, or holds or names no image.
        InputError: It is not such a dataset, or does not fit the model.
    """
    path = Path(path)
    if spec.task == "tensors":
        raise InputError("a model that gives tensors has no classes to compare with a dataset")
    if not path.exists():
        raise MediaError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if spec.finds_boxes:
        if path.is_dir() or suffix != ".json":
            task = spec.task.replace("_", " ")
            raise InputError(f"{path}: {task} is evaluated on a COCO .json file")
        return _from_coco(path, spec)
    if path.is_dir():
        return _from_folder(path, spec)
    if suffix != ".csv":
        raise InputError(f"{path}: classification is evaluated on a folder a class, or a .csv of file,class")
    return _from_csv(path, spec)


def _from_folder(path: Path, spec: ModelSpec) -> Dataset[int]:
    try:
        folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        tables = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() == ".csv")
    except OSError as error:
        raise MediaError(f"{path}: cannot be listed ({error.strerror})") from error
    if not folders:
        cure = f"name its {tables[0]} instead" if tables else "put the images of each class into one"
        raise MediaError(f"{path}: holds no folder a class; {cure}")
    folders.sort(key=lambda entry: (_number(entry.name) is None, _number(entry.name) or 0, entry.name))
    in_order = not spec.labels and any(_number(entry.name) is None for entry in folders)
    files: list[Path] = []
    truths: list[int] = []
    for place, folder in enumerate(folders):
        images = list_images(folder)
        files += images
        truths += [place if in_order else _class_id(folder.name, spec, str(folder))] * len(images)
    labels = tuple(folder.name for folder in folders) if in_order else ()
    return Dataset(str(path), tuple(files), tuple(truths), labels)


def _from_csv(path: Path, spec: ModelSpec) -> Dataset[int]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV of UTF-8 text ({error})") from error
    files: list[Path] = []
    truths: list[int] = []
    for place, (line, row) in enumerate(rows):
        where = f"{path}, line {line}"
        if len(row) != 2:
            raise InputError(f"{where}: {len(row)} values, rows are file,class")
        file = path.parent / row[0]
        if place == 0 and _is_header(file, row[1], spec):
            continue
        if not _is_file(file):
            raise MediaError(f"{where}: {file}: no such file")
        files.append(file)
        truths.append(_class_id(row[1], spec, where))
    if not files:
        raise MediaError(f"{path}: names no image; its rows are file,class")
    return Dataset(str(path), tuple(files), tuple(truths))


def _is_header(file: Path, name: str, spec: ModelSpec) -> bool:
    known = name in spec.labels or _number(name) is not None
    return not known and file.suffix.lower() not in IMAGE_SUFFIXES and not _is_file(file)


def _is_file(path: Path) -> bool:
    """A name of any length may be asked for; pathlib raises where the system finds it too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _class_id(text: str, spec: ModelSpec, where: str) -> int:
    """The class that a label or a number names."""
    if text in spec.labels:
        return spec.labels.index(text)
    number = _number(text)
    if not spec.labels:
        if number is None:
            raise InputError(f"{where}: class {text!r}, but the model has no labels: give class ids")
        return number
    if number is None or number >= len(spec.labels):
        raise InputError(
            f"{where}: class {text!r} is not one of the model's {len(spec.labels)} ({_some(spec.labels)})"
        )
    return number


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:LABELS_SHOWN], *(["…"] if len(names) > LABELS_SHOWN else [])])


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int | bool = 0
    ignore: int | bool = 0


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _from_coco(path: Path, spec: ModelSpec) -> Dataset[Objects]:
    try:
        coco = msgspec.json.decode(path.read_bytes(), type=_Coco)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not COCO annotations of boxes ({error})") from error
    if not coco.images:
        raise MediaError(f"{path}: lists no image")
    class_ids = _known_categories(coco.categories, spec, path)
    # COCO ranks equal scores in the order of the image ids
    images = sorted(coco.images, key=lambda image: image.id)
    annotations: dict[int, list[_Annotation]] = {image.id: [] for image in images}
    if len(annotations) < len(images):
        raise InputError(f"{path}: two images have the same id")
    categories = {category.id for category in coco.categories}
    for number, annotation in enumerate(coco.annotations):
        where = f"{path}: annotations[{number}]"
        if annotation.image_id not in annotations:
            raise InputError(f"{where} is of image {annotation.image_id}, which is not listed")
        if annotation.category_id not in categories:
            raise InputError(f"{where} is of category {annotation.category_id}, which is not listed")
        if min(annotation.bbox[2:]) < 0:
            raise InputError(f"{where}: bbox {list(annotation.bbox)} is x, y, width, height; one is negative")
        if annotation.category_id in class_ids:
            annotations[annotation.image_id].append(annotation)
    return Dataset(
        str(path),
        tuple(_located(image.file_name, path) for image in images),
        tuple(_objects(annotations[image.id], class_ids) for image in images),
        annotated=tuple(sorted(set(class_ids.values()))),
    )


def _known_categories(categories: Sequence[_Category], spec: ModelSpec, path: Path) -> dict[int, int]:
    """The model's class id of each category that it knows."""
    known = {label: i for i, label in enumerate(spec.labels) if i != spec.background}
    if not known:
        raise InputError(f"{path}: the model has no labels to match categories with; convert it with labels")
    class_ids = {category.id: known[category.name] for category in categories if category.name in known}
    others = [category.name for category in categories if category.name not in known]
    if not class_ids:
        raise InputError(
            f"{path}: none of its categories ({_some(others) or 'there are none'}) "
            f"is a label of the model ({_some(list(known))})"
        )
    if others:
        log.warning("%s: the model does not know %s: left out", path, ", ".join(others))
    return class_ids


def _located(name: str, path: Path) -> Path:
    for folder in (path.parent, path.parent / "images"):
        if _is_file(folder / name):
            return folder / name
    raise MediaError(f"{path}: {path.parent / name}: no such file, nor in images/ beside it")


def _objects(annotations: Sequence[_Annotation], class_ids: dict[int, int]) -> Objects:
    """Boxes as corners; `ignore`, where an annotation has it, is taken as a crowd is."""
    boxes = np.array([annotation.bbox for annotation in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        boxes,
        np.array([class_ids[annotation.category_id] for annotation in annotations], np.int64),
        np.array([bool(annotation.iscrowd or annotation.ignore) for annotation in annotations], bool),
    )
