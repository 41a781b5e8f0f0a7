"""Datasets: a data.yaml or a folder of classes, checked before Ultralytics resolves it.

Ultralytics runs a yaml's `download:` as Python or bash when the images are missing, and fetches addresses, archives and
ndjson listings. A file that it ships may do so; anything else needs the user's word.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.data.utils import (
    DATASET_KEY_TYPES,
    IMG_FORMATS,
    check_cls_dataset,
    check_det_dataset,
    convert_ndjson_to_yolo_if_needed,
    find_dataset_yaml,
)
from ultralytics.utils import DATASETS_DIR, ROOT, YAML
from ultralytics.utils.checks import check_file

from distill.adapters.ultralytics.caches import check_caches
from distill.adapters.ultralytics.environment import TRUST, shipped
from distill.errors import InputError
from distill.text import given, nearest, one_line

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".txz", ".tbz2", ".ndjson")
CLASSIFY = (  # https://docs.ultralytics.com/datasets/classify; no list of them is in the package
    *("caltech101", "caltech256", "cifar10", "cifar100", "fashion-mnist", "imagenet", "imagenet10", "imagenet100"),
    *("imagenette", "imagenette160", "imagenette320", "imagewoof", "imagewoof160", "imagewoof320", "mnist", "mnist160"),
)
LISTS = {"train": "images to train on", "val": "images to validate on"}


def read_data(data: str | Path, task: str, trust: bool = False) -> dict[str, Any]:
    """The dataset as Ultralytics resolves it: absolute `train` and `val`, `names` by index, `nc`, `channels`.

    A name that Ultralytics ships (coco128.yaml, imagenet10) is downloaded if need be; a local file or folder of the
    same name wins, and is not trusted. Raises InputError for a dataset that cannot be used or, without `trust`, would
    fetch or run something.
    """
    where = given("--data", data)
    text = str(data).strip()
    if _is_remote(text):
        if not trust:
            raise InputError(f"{where}: fetched or unpacked before use; unpack it and give its data.yaml, or {TRUST}")
        text = str(convert_ndjson_to_yolo_if_needed(text))
    if task == "classify":
        return _classes(text, where, trust)
    if _is_remote(text):
        found: str | Path = text
    else:
        found = find_data_yaml(text, where)
        _check_yaml(found, where, task, trust)
    try:
        resolved = check_det_dataset(found)
    except Exception as error:  # its checks raise five kinds, its downloads any
        raise InputError(f"{where}: {_reason(error)}") from error
    for key in LISTS:
        paths = resolved[key] if isinstance(resolved[key], list) else [resolved[key]]
        for path in map(Path, paths):
            _need_images(path, f"{where}: '{key}:' is {path}, which", f"correct '{key}:' or 'path:'")
    if not trust:
        check_caches(resolved, where)
    return resolved


def find_data_yaml(text: str, where: str) -> Path:
    """The yaml that Ultralytics will read for this name, path or folder. Raises InputError when there is none."""
    local = Path(os.path.expanduser(text))
    if local.is_dir():
        try:
            return find_dataset_yaml(local).absolute()
        except AssertionError as error:
            raise InputError(f"{where}: a folder without one data.yaml; give the file itself") from error
    if local.is_file():
        return local.absolute()
    names = [text] if local.suffix.lower() in (".yaml", ".yml") else [f"{text}.yaml", f"{text}.yml"]
    for name in names:
        if (found := check_file(name, download=False, hard=False)) and Path(found).is_file():
            return Path(found).absolute()
    near = [f.name for folder in (local.parent, ROOT / "cfg/datasets") for f in folder.glob("*.y*ml")]
    raise InputError(f"{where}: no such file{nearest(local.name, near)}")


def _is_remote(text: str) -> bool:
    return "://" in text or (text.lower().endswith(ARCHIVES) and not Path(text).is_dir())


def _check_yaml(file: Path, where: str, task: str, trust: bool) -> None:
    """Refuse what Ultralytics would run, and what it would only complain of in several lines or much later."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"{where}: not a data description, whose name ends in .yaml")
    try:
        content = YAML.load(file)
    except Exception as error:  # of the YAML parser, of the file system
        raise InputError(f"{where}: not readable as YAML ({one_line(error)})") from error
    if content.get("download") and not trust and not shipped(file):
        raise InputError(
            f"{where}: its 'download:' would be fetched or run as code; remove that line (and get the images yourself),"
            f" or {TRUST}"
        )
    _check_keys(content, where, task)


def _check_keys(content: Mapping[str, Any], where: str, task: str) -> None:
    for key, meaning in LISTS.items():
        if not content.get(key) and not (key == "val" and content.get("validation")):
            raise InputError(f"{where}: no '{key}:'; it names the folder of {meaning}")
    for key, types in DATASET_KEY_TYPES.items():
        if content.get(key) is not None and not isinstance(content[key], types):
            wanted = " or ".join({"str": "text", "dict": "mapping"}.get(t.__name__, t.__name__) for t in types)
            raise InputError(f"{where}: '{key}:' must be a {wanted}, not {one_line(content[key])!r}")
    names = content.get("names")
    if names is None and content.get("nc") is None:
        raise InputError(f"{where}: no 'names:'; it lists the classes, such as [cat, dog]")
    if names is not None:
        _check_names(names, where)
    if task == "pose" and not content.get("kpt_shape"):
        raise InputError(f"{where}: no 'kpt_shape:', which pose needs, such as [17, 3]")


def ordered(names: Mapping[int, str]) -> list[str]:
    """Class names by number: the order in which a yaml or a checkpoint lists them means nothing."""
    return [names[number] for number in sorted(names)]


def _check_names(names: list[Any] | dict[Any, Any], where: str) -> None:
    by_index = names if isinstance(names, dict) else dict(enumerate(names))
    if not by_index or any(name is None or isinstance(name, (list, dict)) for name in by_index.values()):
        raise InputError(f"{where}: 'names:' must give every class a name, such as [cat, dog]")
    if {str(key) for key in by_index} != {str(index) for index in range(len(by_index))}:
        raise InputError(f"{where}: 'names:' must number its {len(by_index)} classes from 0, without a gap")


def _classes(text: str, where: str, trust: bool) -> dict[str, Any]:
    """A classification dataset: a folder with train/ and val/ or test/, in each a folder per class."""
    folder = next((f for f in (Path(os.path.expanduser(text)), DATASETS_DIR / text) if f.is_dir()), None)
    if folder is None and Path(text).is_file() and not _is_remote(text):
        raise InputError(f"{where}: a file; classification takes the folder that holds train/ and val/")
    if folder is None and text not in CLASSIFY and not _is_remote(text):
        near = [f.name for f in Path(text).parent.glob("*") if f.is_dir()]
        raise InputError(f"{where}: no such folder{nearest(Path(text).name, [*near, *CLASSIFY])}")
    if folder is not None and not (folder / "train").is_dir():  # Ultralytics would split the images into a new folder
        raise InputError(f"{where}: no train/ in it; classification takes a folder that holds train/ and val/")
    try:
        resolved = check_cls_dataset(str(folder or text))
    except Exception as error:  # as above
        raise InputError(f"{where}: {_reason(error)}") from error
    if not resolved["names"]:
        raise InputError(f"{where}: no folders in train/; each class needs one with its images")
    held_out = resolved["val"] or resolved["test"]
    if held_out is None:
        raise InputError(f"{where}: no val/ or test/ in it; validation needs images of its own")
    for path in (resolved["train"], held_out):
        _need_images(Path(path), f"{where}: {path}", "put its images there, a folder for each class")
    return resolved


def _reason(error: Exception) -> str:
    """The first line of Ultralytics' complaint: the others name its own settings file."""
    first = one_line(next(iter(str(error).splitlines()), type(error).__name__))
    missing = first.rpartition("missing path ")[2] if "missing path" in first else ""
    return f"'val:' is {missing}, which does not exist; correct 'val:' or 'path:'" if missing else first


def _need_images(path: Path, subject: str, remedy: str) -> None:
    """`path` is a folder, looked through as Ultralytics does, or a text file with a path in each line."""
    if path.is_dir():
        files = glob.iglob(str(Path(glob.escape(str(path))) / "**" / "*.*"), recursive=True)
    elif path.is_file():
        files = iter(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    else:
        raise InputError(f"{subject} does not exist; {remedy}")
    if not any(file.rpartition(".")[-1].lower() in IMG_FORMATS for file in files):
        raise InputError(f"{subject} holds no images; {remedy}")
