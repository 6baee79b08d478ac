"""The real Cognite Toolkit builds a project, deploys it to the emulator, twice, and what it deployed runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_cdf.emulator import CdfEmulator
from airflow_provider_cdf.emulator.toolkit.variables import read_config

pytestmark = pytest.mark.slow

TOOLKIT = "cognite-toolkit==0.9.28"

CONFIG = """\
environment: {name: dev, project: emulator, validation-type: dev, selected: [modules/]}
variables:
  modules:
    client: emulator-client
    secret: s3cret
    site: north
    plant: "0042"
    note: "note:"
    since: 2024-01-01
    flag: true
    limit: 7
    many: [a, b c]
    pumps:
      - {pump: P-1}
      - {pump: P-2, site: south}
"""

FILES = {
    "cdf.toml": '[cdf]\ndefault_config_yaml = "config.dev.yaml"\n[modules]\nversion = "0.9.28"\n',
    "config.dev.yaml": CONFIG,
    "modules/plant/auth/workflow.Group.yaml": "name: no workflow\nsourceId: x\ncapabilities: []\n",
    "modules/plant/workflows/score.Workflow.yaml": (
        "externalId: score_{{ site }}  # {{ nobody_gives_this }}\n"
        "description: '{{ note }}'\n"
        "dataSetExternalId: emulator\n"
        "dataDomainExternalId: pumps\n"
        "maxConcurrentExecutions: {{ limit }}\n"
    ),
    "modules/plant/workflows/score.WorkflowVersion.yaml": """\
workflowExternalId: score_{{ site }}
version: "1.10"
workflowDefinition:
  tasks:
    - externalId: load_{{ plant }}
      type: function
      retries:
      dependsOn:
      parameters:
        function:
          externalId: load
          data:
            plant: {{ plant }}
            quoted: '{{ plant }}'
            note: {{ note }}
            since: "{{ since }}"
            flag: {{ flag }}
            text: it is {{ flag }}
            limit: {{ limit }}
            many:
              {{ many }}
            inline: {{ many }}
            nothing: null
            input: ${workflow.input}
    - externalId: transform
      type: transformation
      onFailure: skipTask
      dependsOn:
        - externalId: load_{{ plant }}
      parameters: {transformation: {externalId: t}}
    - externalId: mapped
      type: functionApp
      parameters: {functionApp: {externalId: app, path: /map}}
""",
    "modules/plant/workflows/nightly.WorkflowTrigger.yaml": """\
externalId: nightly
triggerRule: {triggerType: schedule, cronExpression: 0 3 * * *}
workflowExternalId: score_{{ site }}
workflowVersion: "1.10"
isPaused: true
authentication: {clientId: {{ client }}, clientSecret: {{ secret }}}
""",
    "modules/pumps/workflows/pump.Workflow.yaml": "externalId: '{{ pump }}_{{ site }}'\n",
}


@pytest.fixture(scope="module")
def cdf_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Toolkit's command, in an environment of its own: it must not decide what this project installs."""
    if (uv := shutil.which("uv")) is None:
        pytest.skip("uv, which installs the Toolkit, is not there")
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    home = tmp_path_factory.mktemp("toolkit")
    subprocess.run([uv, "venv", "-q", home], check=True)
    command = [uv, "pip", "install", "-q", "--python", home, TOOLKIT]
    installed = subprocess.run(
        [*command, "--exclude-newer", settings["tool"]["uv"]["exclude-newer"]], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"The Toolkit could not be installed: {installed.stderr[-500:]}")
    return home / "bin" / "cdf"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.fixture
def cdf() -> Iterator[CdfEmulator]:
    with CdfEmulator(functions={"load": {"loaded": 1}}, client_secret="s3cret") as emulator:
        yield emulator


def run_toolkit(command: Path, project: Path, cdf: CdfEmulator, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(project),
        "TMPDIR": str(project),
        "COLUMNS": "200",
        "CDF_URL": cdf.url,
        "CDF_PROJECT": cdf.project,
        "CDF_CLUSTER": "emulator",
        "PROVIDER": "other",
        "LOGIN_FLOW": "client_credentials",
        "IDP_CLIENT_ID": cdf.client_id,
        "IDP_CLIENT_SECRET": cdf.client_secret,
        "IDP_TOKEN_URL": cdf.token_url,
        "IDP_SCOPES": "emulator",
        "IDP_AUDIENCE": "emulator",
        "IDP_AUTHORITY_URL": cdf.url,
        # No usage tracking, and nothing that leaves this machine: the Toolkit tracks nobody's tests.
        "PYTEST_CURRENT_TEST": "test_toolkit",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [command, *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def counts(output: str, resource: str) -> dict[str, int]:
    """A row of the table at the end of a deployment."""
    (heads,) = re.findall(r"Resource +(.*Total)", output)
    (row,) = re.findall(rf"  {resource} +((?:\d+ +)+)", output)
    return {head: int(number) for head, number in zip(heads.split(), row.split(), strict=True) if int(number)}


class Client:
    """The API of an emulator, logged in."""

    def __init__(self, cdf: CdfEmulator) -> None:
        keys = {"client_id": cdf.client_id, "client_secret": cdf.client_secret}
        answer = httpx.post(cdf.token_url, data={"grant_type": "client_credentials", **keys})
        self.base = f"{cdf.url}/api/v1/projects/{cdf.project}"
        self.headers = {"authorization": f"Bearer {answer.json()['access_token']}"}

    def get(self, path: str) -> Any:
        return httpx.get(self.base + path, headers=self.headers).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        return httpx.post(self.base + path, json=body, headers=self.headers).raise_for_status().json()

    def everything(self) -> dict[str, Any]:
        """What is there, without times, and without what only a login or a look-up gives."""
        left_out = {"createdTime", "lastUpdatedTime", "dataSetId", "metadata"}
        lists = {
            "workflows": self.get("/workflows"),
            "versions": self.post("/workflows/versions/list", {}),
            "triggers": self.get("/workflows/triggers"),
        }
        return {
            kind: sorted(
                ({k: v for k, v in item.items() if k not in left_out} for item in found["items"]), key=str
            )
            for kind, found in lists.items()
        }


def test_what_the_toolkit_deploys_is_unchanged_at_the_second_time_and_runs(
    cdf_command: Path, project: Path, cdf: CdfEmulator
) -> None:
    run_toolkit(cdf_command, project, cdf, "build")
    first = run_toolkit(cdf_command, project, cdf, "deploy", "--include", "workflows")
    assert counts(first, "workflows") == {"Created": 3, "Total": 3}
    assert counts(first, "All") == {"Created": 5, "Total": 5}
    second = run_toolkit(cdf_command, project, cdf, "deploy", "--include", "workflows")
    assert counts(second, "All") == {"Unchanged": 5, "Total": 5}
    client = Client(cdf)
    deployed = client.everything()
    assert client.get("/workflows/score_north")["dataSetId"]

    # The same files, read by the emulator itself.
    variables = read_config(project / "config.dev.yaml")
    with CdfEmulator([project / "modules"], variables=variables) as other:
        assert Client(other).everything() == deployed

    nonce = client.post("/sessions", {"items": [{"tokenExchange": True}]})["items"][0]["nonce"]
    body = {"authentication": {"nonce": nonce}, "input": {"x": [None, 1]}}
    execution = client.post("/workflows/score_north/versions/1.10/run", body)
    deadline = time.monotonic() + 120
    while (found := client.get(f"/workflows/executions/{execution['id']}"))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["status"] == "COMPLETED", found
    load = next(task for task in found["executedTasks"] if task["taskType"] == "function")
    assert load["externalId"] == 'load_"0042"'  # what the Toolkit makes of text of digits within other text
    assert load["output"]["response"] == {"loaded": 1}
    assert load["input"]["function"]["data"] == {
        "plant": "0042",
        "quoted": "0042",
        "note": "note:",
        "since": "2024-01-01",
        "flag": True,
        "text": "it is True",
        "limit": 7,
        "many": ["a", "b c"],
        "inline": ["a", "b c"],
        "nothing": None,
        "input": {"x": [None, 1], "version": "1.10"},
    }
