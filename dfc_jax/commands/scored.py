"""One set of `dfc evaluate`: its faces, what is found in them, its scores."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dfc_jax.commands.arguments import UsageError, complain, sentence
from dfc_jax.commands.logs import LOG
from dfc_jax.errors import DatasetError, EvaluationError, UserError
from dfc_jax.files import path_text

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.data.faces import AnnotatedFace
    from dfc_jax.evaluation.predictions import Predictions
    from dfc_jax.evaluation.scores import ScoreSettings
    from dfc_jax.evaluation.trials import Visibility
    from dfc_jax.inference.align import Aligner


class FaceFolder(NamedTuple):
    """A set of annotated faces: its name in the scores, its layout, its folder."""

    name: str
    layout: str
    folder: Path


def read_faces(folder: FaceFolder) -> "tuple[list[AnnotatedFace], list[Any]]":
    """The faces of a set that can be used, and the keys of the others, which are complained of.

    Raises:
      DatasetError: none can be used.
    """
    from dfc_jax.data.faces import read_usable
    from dfc_jax.data.layouts import all_readers, open_faces

    faces, problems = read_usable(open_faces(folder.layout, folder.folder, all_readers()))
    for problem in problems.values():
        complain(problem)
    return faces, list(problems)


def names_of(keys: Iterable[Any]) -> list[str]:
    """What the faces of a set are called by the keys of `FaceSet`: files, names or numbers."""
    return [path_text(key.name) if isinstance(key, Path) else str(key) for key in keys]


def score_faces(
    folder: FaceFolder,
    faces: "list[AnnotatedFace]",
    problems: list[Any],
    source: "Aligner | Path",
    arguments: argparse.Namespace,
    settings: "ScoreSettings",
) -> tuple[dict[str, Any], str]:
    """The record of a set, and the name of the system whose it is.

    Args:
      folder, faces, problems: the set, and of `read_faces`.
      source: finds the faces, or is the file of what another system found.
      arguments: of the command.
      settings: how they are scored.

    Raises:
      UserError: no face could be scored, or the file does not fit the set.
    """
    from dfc_jax.evaluation.predictions import write_predictions
    from dfc_jax.evaluation.scores import set_scores

    unreadable: list[Path] = []
    own: dict[str, np.ndarray] = {}
    if isinstance(source, Path):
        found = _matched(source, arguments.system, faces, problems)
    else:
        quiet = arguments.verbosity < 0
        faces, readings, unreadable = _align(source, faces, arguments.boxes, quiet)
        if not faces:
            raise UsageError(f"{folder.folder}: no photograph in it could be scored")
        found, own = _found(source, faces, readings)
    visibility = _visibility(faces, arguments)
    scores = set_scores(faces, found, own, visibility, settings, folder.folder)
    _warn_of_missing(folder.name, scores["protocols"], arguments.protocol or (), settings)
    if arguments.predictions_out is not None:
        write_predictions(arguments.predictions_out, found)
    unusable = names_of([*problems, *unreadable])
    record = {"name": folder.name, "layout": folder.layout, **scores, "unusable": unusable}
    return record, found.system


def _warn_of_missing(
    name: str, scored: Mapping[str, Any], wanted: Sequence[str], settings: "ScoreSettings"
) -> None:
    """Say which protocols a set is not scored by, though they were asked for."""
    by = settings.normalised_by
    if not scored and by != "box":
        LOG.warning("%s: no face of it has the length %s", name, by)
        return
    missing = [protocol for protocol in wanted if protocol not in scored]
    if missing:
        LOG.warning("%s: it has no points for the protocol %s", name, ", ".join(missing))


def _align(
    aligner: "Aligner", faces: "list[AnnotatedFace]", boxes: str, quiet: bool
) -> "tuple[list[AnnotatedFace], list[dict[str, np.ndarray]], list[Path]]":
    """The faces whose photographs can be used, what is read of each, and the photographs that
    cannot be used, which are named on standard error."""
    from tqdm import tqdm

    from dfc_jax.evaluation.protocols import align_examples, read

    detector = aligner.detector if boxes == "detector" else None
    scored: list[AnnotatedFace] = []
    readings: list[dict[str, np.ndarray]] = []
    unusable: list[Path] = []
    with tqdm(total=len(faces), unit="photo", disable=quiet or None) as bar:
        results = align_examples(aligner, faces, detector)
        for face, found in zip(faces, results, strict=True):
            reading: dict[str, np.ndarray] | Exception
            try:
                reading = found if isinstance(found, Exception) else read(aligner, found, face)
            except UserError as error:  # the true mask cannot be read
                reading = error
            if isinstance(reading, Exception):
                unusable.append(face.photo)
                complain(sentence(face.photo, reading), bar.write)
            else:
                scored.append(face)
                readings.append(reading)
            bar.update()
    return scored, readings, unusable


def _found(
    aligner: "Aligner", faces: "list[AnnotatedFace]", readings: "list[dict[str, np.ndarray]]"
) -> "tuple[Predictions, dict[str, np.ndarray]]":
    """What was read of faces as predictions, and what these do not hold."""
    from dfc_jax.evaluation.predictions import Predictions
    from dfc_jax.evaluation.protocols import stacked

    own = stacked(readings)
    names = tuple(face.name for face in faces)
    # Without the digits of the file's content, which stand among the versions.
    weights, _, digits = aligner.versions["weights"].rpartition("-")
    system = f"dfc_jax {weights or digits}"
    return Predictions(system, names, own.pop("points"), own.pop("angles_deg")), own


def _matched(
    file: Path, system: str | None, faces: "list[AnnotatedFace]", problems: list[Any]
) -> "Predictions":
    """The predictions of a file for the faces of a set; how many have none is said."""
    from dfc_jax.evaluation.predictions import listed, match, read_predictions

    predictions = read_predictions(file, system)
    stems = {Path(str(key)).stem for key in problems} | {str(key) for key in problems}
    unusable = [name for name in predictions.names if name.rpartition("/")[2] in stems]
    try:
        found, missing = match(predictions, [face.name for face in faces], unusable)
    except EvaluationError as error:
        raise EvaluationError(f"{file}: {error}") from error
    if missing:
        count = f"{len(missing)} of {len(faces)} faces"
        complain(f"{file}: has none of {count}, which count as no output: {listed(missing)}")
    return found


def _visibility(faces: "list[AnnotatedFace]", arguments: argparse.Namespace) -> "Visibility | None":
    """Which points are visible, where a face model is given for it, or the protocol is asked for;
    None where nothing says so. Of a face whose points say nothing of a mesh none are."""
    if arguments.basel is None and "visible-inner" not in (arguments.protocol or ()):
        return None
    import numpy as np

    from dfc_jax.data.lp_model import read_lp_model
    from dfc_jax.evaluation.trials import Visibility
    from dfc_jax.evaluation.visibility import visible_landmarks_of
    from dfc_jax.landmarks68 import N_LANDMARKS
    from dfc_jax.morphable.file import load_face_model

    model = load_face_model(arguments.face_model)
    lp = None if arguments.basel is None else read_lp_model(arguments.basel)
    masks, origins = np.zeros((len(faces), N_LANDMARKS), bool), []
    for mask, face in zip(masks, faces, strict=True):
        try:
            mask[:], origin = visible_landmarks_of(face, model, lp)
        except DatasetError as error:
            LOG.info("%s", error)
        else:
            origins.append(origin)
    return Visibility(masks, ", ".join(dict.fromkeys(origins)))
