"""A volume that Kubernetes has given to a group (`fsGroup`): what the kubelet sets, the guard does not set back."""

import os
import stat
from pathlib import Path

import pytest

from tests.guard.keeping import again, layout_at, made

GROUP = 1000


def give_to_group(volume: Path) -> None:
    """What the kubelet does to a volume when a pod starts (Kubernetes' `pkg/volume/volume_linux.go`).

    Its group on everything, which may read and write all, and enter directories; those are set-group-ID.
    """
    for directory, _, files in os.walk(volume):
        for path in (Path(directory), *(Path(directory, name) for name in files)):
            found = path.lstat()
            os.lchown(path, -1, GROUP)
            more = 0o660 | (stat.S_ISGID | 0o110 if stat.S_ISDIR(found.st_mode) else 0)
            path.chmod(stat.S_IMODE(found.st_mode) | more)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")
def test_what_the_kubelet_sets_is_as_declared(tmp_path: Path) -> None:
    """With the manifests' dir_permissions: a tree as made and a tree after any number of pod starts show no drift."""
    layout = made(layout_at(tmp_path / "data", dir_permissions=0o2775))
    (tmp_path / "data/state/agents/a.json").write_text("{}")
    for _ in range(2):
        give_to_group(tmp_path)
        assert ((), ()) == (again(layout).drifts, again(layout).actions)
        assert 0o2775 == stat.S_IMODE((tmp_path / "data/state/agents").stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")
def test_what_is_made_again_belongs_to_the_group(tmp_path: Path) -> None:
    """A directory that comes back is the group's, and the next pod start finds nothing to do."""
    layout = made(layout_at(tmp_path / "data", dir_permissions=0o2775))
    give_to_group(tmp_path)
    (tmp_path / "data/state/sessions").rmdir()
    again(layout)
    found = (tmp_path / "data/state/sessions").stat()
    assert (0o2775, GROUP) == (stat.S_IMODE(found.st_mode), found.st_gid)
    give_to_group(tmp_path)
    assert () == again(layout).drifts
