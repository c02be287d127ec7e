"""Finds the files to predict, given as files and folders."""

import os
from collections.abc import Sequence

from trainers.data.datasets.folders import IMAGE_EXTENSIONS
from trainers.data.datasets.folders import count_by_suffix
from trainers.data.video_files import VIDEO_EXTENSIONS
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.reporting import log_to_stderr


def named_inputs(values: Sequence[str]) -> list[str]:
    """Returns the files and folders of --inputs; a value may hold several with commas between.

    An existing path with a comma in its name is taken as it is.

    Raises:
        ConfigurationError: If there are none, or one does not exist.
    """
    paths = [path for value in values for path in _split(value)]
    if not paths:
        raise ConfigurationError(
            "Expected --inputs=FILE_OR_FOLDER, several with commas between. Received none."
        )
    for path in paths:
        if not files.exists(path):
            raise ConfigurationError(f"--inputs={path}: there is no such file or folder.")
    return paths


def find_inputs(paths: Sequence[str], takes_videos: bool) -> list[str]:
    """Returns the files to predict, each once, however it is reached.

    A named file is taken whatever its name. Of a folder and its subfolders, in sorted order, the
    files are taken whose names end as images, or videos, do.

    Raises:
        ConfigurationError: If there are none.
    """
    extensions = VIDEO_EXTENSIONS if takes_videos else IMAGE_EXTENSIONS
    found: dict[str, str] = {}
    others: list[str] = []
    visited: set[str] = set()
    for path in paths:
        if not files.is_directory(path):
            found.setdefault(files.identity(path), path)
            continue
        for file in files.files_below(path, extensions, visited):
            if file.lower().endswith(extensions):
                found.setdefault(files.identity(file), file)
            else:
                others.append(file)
    kinds = f"{', '.join(extensions[:-1])} or {extensions[-1]}"
    if not found:
        raise ConfigurationError(
            f"--inputs={','.join(paths)}: the model takes {'videos' if takes_videos else 'images'}"
            f", and no file there ends in {kinds} ({len(others)} others)."
        )
    if others:
        counted = count_by_suffix(others)
        log_to_stderr(f"skipped in folders: files that do not end in {kinds}: {counted}")
    return list(found.values())


def check_outside(path: str, inputs: Sequence[str], flag: str) -> None:
    """Checks that a folder to write into does not lie in a folder of inputs.

    Raises:
        ConfigurationError: If it does: the next run would take its files for inputs.
    """
    below = files.identity(path).rstrip("/") + "/"
    for each in inputs:
        above = files.identity(each).rstrip("/") + "/"
        if files.is_directory(each) and below.startswith(above):
            raise ConfigurationError(
                f"--{flag}={path} lies in --inputs={each}: another run would take what is "
                "written there for inputs. Choose another folder."
            )


def _split(value: str) -> list[str]:
    whole = os.path.expanduser(value)
    if "," not in value or files.exists(whole):
        return [whole] if value else []
    return [os.path.expanduser(part.strip()) for part in value.split(",") if part.strip()]
