"""Fixtures for tests of remote places: a bucket on a real S3 server, and a client of another make.

A test module imports the fixtures that it uses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs
from commands import WIDEN, saved, tensors, written
from s3_server import S3, Request, running

BUCKET = "models"


@dataclass(frozen=True)
class Bucket:
    """A bucket, empty when a test begins; ``folder`` holds a teacher, a spec, and temporary files.

    The teacher is in the bucket too, as ``teacher.safetensors``.
    """

    server: S3
    client: Any
    folder: Path

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def put(self, name: str, data: bytes | Path) -> None:
        body = data.read_bytes() if isinstance(data, Path) else data
        self.client.put_object(Bucket=BUCKET, Key=name, Body=body)

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def names(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"] for each in found}

    def unfinished(self) -> list[Any]:
        return self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])

    def faults(self, **faults: Any) -> list[Request]:
        return self.server.control(**faults)

    def left(self) -> list[str]:
        """What ckgrow has among the temporary files; other libraries may have some too."""
        return [each.name for each in self.temporary.glob("ckgrow*")]

    def environment(self, **more: str) -> dict[str, str]:
        return {**self.server.environment, "TMPDIR": str(self.folder / "temporary"), **more}

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher.safetensors"

    @property
    def spec(self) -> Path:
        return self.folder / "spec.yaml"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"


@pytest.fixture(scope="module")
def server():
    s3fs.S3FileSystem.clear_instance_cache()
    with running() as s3:
        s3.client().create_bucket(Bucket=BUCKET)
        yield s3
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    for name in set(os.environ) - set(server.environment):
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.control()
    client = server.client()
    bucket = Bucket(server, client, tmp_path)
    for name in bucket.names():
        client.delete_object(Bucket=BUCKET, Key=name)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    bucket.put("teacher.safetensors", saved(bucket.teacher, tensors()))
    written(bucket.spec, WIDEN)
    return bucket
