"""The function that workers run: one apply, one record. It is given texts, and returns JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from ckgrow.batches.halting import Obedient
from ckgrow.batches.records import DONE, FAILED, SKIPPED, Record
from ckgrow.batches.stamps import folder_stamp, from_folder, hash_spec
from ckgrow.errors import CkgrowError, FileError, Terminated
from ckgrow.names import secrets_of
from ckgrow.public import apply
from ckgrow.reasons import words
from ckgrow.reports.documents import ApplyDocument
from ckgrow.version import VERSION

INTERNAL = 5


def run_job(
    teacher: str,
    spec: str,
    output: str,
    *,
    weights: str = "",
    verify: bool = True,
    force: bool = False,
    sign: str = "",
    parent: int = 0,
) -> dict[str, Any] | None:
    """Grows one teacher in one thread, and says what became of it as a record's mapping.

    Whatever goes wrong with the job stands in the record. None when it was stopped: by ``sign``
    or the death of ``parent``, which are as in :class:`ckgrow.batches.halting.Obedient`.
    """
    begun = time.perf_counter()
    record = Record(
        *(teacher, spec, output, FAILED, 0.0), weights=weights, verify=verify, version=VERSION
    )
    try:
        watching = Obedient(sign, parent)
        watching.begin("starting", 0)
        folder = folder_stamp(teacher)  # before it is read
        known = hash_spec(spec)
        document = apply(
            teacher,
            spec,
            output,
            workers=1,
            force=force,
            check=verify,
            weights=weights or None,
            watching=watching,
        )
        record = dataclasses.replace(record, **_told(document), spec_hash=known)
        if record.status != FAILED:
            files = {
                "teacher": from_folder(document.files["teacher"], teacher),
                "output": from_folder(document.files["student"], output),
            }
            if files["teacher"]:
                files["teacher"] = {**folder, **files["teacher"]}
            record = dataclasses.replace(record, files=files)
    except Terminated:
        return None
    except CkgrowError as failure:
        record = _failed(record, str(failure), failure.exit_code)
    except OSError as failure:
        record = _failed(record, words(failure), FileError.exit_code)
    except Exception as failure:  # noqa: BLE001 - a job that fails must not stop the others
        said = _without_secrets(str(failure), (teacher, spec, output))
        record = _failed(record, f"internal error: {type(failure).__name__}: {said}", INTERNAL)
    return dataclasses.asdict(
        dataclasses.replace(record, seconds=round(time.perf_counter() - begun, 4))
    )


def _told(document: ApplyDocument) -> dict[str, Any]:
    """What a record takes from an apply's document."""
    verdict = document.verify
    told: dict[str, Any] = {
        "status": {"written": DONE, "up to date": SKIPPED}.get(document.status, FAILED),
        "hashes": dict(document.hashes),
        "preserved": None if verdict is None else verdict.preserved,
    }
    if told["status"] == FAILED:
        reason = verdict.reason if verdict is not None else "it was not preserved"
        told |= {"error": f"not preserved: {reason}", "exit_code": 1}
    return told


def _without_secrets(text: str, places: Iterable[str]) -> str:
    """What a library said of some places, without the passwords and queries in them."""
    for secret in (each for place in places for each in secrets_of(place)):
        text = text.replace(secret, "...").replace(unquote(secret), "...")
    return text


def _failed(record: Record, error: str, exit_code: int) -> Record:
    return dataclasses.replace(
        record, status=FAILED, error=error, exit_code=exit_code, preserved=None, hashes={}
    )
