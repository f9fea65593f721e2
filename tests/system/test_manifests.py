"""Files for containers, judged by their own validators: Kubernetes' schemas, the compose specification, hadolint."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.machine import ROOT

pytestmark = pytest.mark.slow

MANIFESTS = ("sidecar.yaml", "deployment.yaml", "daemonset.yaml", "networkpolicy.yaml")


def validated(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a validator of this environment."""
    program = Path(sys.executable).parent / str(words[0])
    if not program.exists():
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run([str(program), *map(str, words[1:])], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_kubernetes_knows_every_field(manifest: str, version: str) -> None:
    """Strictly: a field that the schema does not have is a fault. From the first version with native sidecars on."""
    result = validated("kubernetes-validate", "--strict", "--version", version, ROOT / "deploy/kubernetes" / manifest)
    assert 0 == result.returncode, result.stdout + result.stderr


def test_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    """The validator sees a misspelt field."""
    text = (ROOT / "deploy/kubernetes/sidecar.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("fsGroupChangePolicy", "fsGroupChangesPolicy"))
    assert 0 != validated("kubernetes-validate", "--strict", wrong).returncode


@pytest.mark.parametrize("manifest", MANIFESTS[:3])
def test_the_monitor_finds_the_port_and_the_token(manifest: str) -> None:
    """Its labels, the port's name and the secret's key are those that each manifest has (the port as a comment)."""
    directory = ROOT / "deploy/kubernetes"
    monitor, text = (directory / "podmonitor.yaml").read_text(), (directory / manifest).read_text()
    (port,), (key,) = re.findall(r"port: (\w+)", monitor), re.findall(r"key: (symbiont\w+)", monitor)
    assert f"- name: {port}\n" in text
    assert "containerPort: 8125" in text
    assert key in text
    (secret,) = set(re.findall(r"secretName: (\S+)", text))
    assert f"name: {secret}\n          key: {key}" in monitor
    (label,) = set(re.findall(r"app.kubernetes.io/name: (\S+)", text))
    (values,) = re.findall(r"values: \[(.*)\]", monitor)
    assert label in values.split(", ")
    assert "port: 8125" in (directory / "networkpolicy.yaml").read_text()


def test_the_compose_file_is_one() -> None:
    """By the compose specification's own schema."""
    result = validated("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "deploy/compose.yaml")
    assert 0 == result.returncode, result.stdout + result.stderr


def test_hadolint_has_nothing_to_say() -> None:
    """Of the Dockerfile."""
    result = validated("hadolint", ROOT / "Dockerfile")
    assert (0, "") == (result.returncode, result.stdout + result.stderr)
