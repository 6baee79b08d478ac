"""
Build, check and tag a release: ``uv run python tests/tools/release.py 0.1.0``. Sends nothing anywhere.

docs/releasing.md says what has to be written first.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 0.1.0")
    parser.add_argument(
        "--checked", action="store_true", help="do not run .ci/run: it has passed for this commit"
    )
    options = parser.parse_args()

    if found := list(problems(options.version)):
        print("\n".join([f"{options.version} cannot be released:", *found]), file=sys.stderr)
        return 1
    if not options.checked:
        run(".ci/run")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run("uv", "build", "--quiet", "--out-dir", str(dist))
    files = [str(file) for file in dist.iterdir() if file.suffix in (".whl", ".gz")]
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    tag = f"v{options.version}"
    run("git", "tag", "--annotate", tag, "--message", f"airflow-provider-cdf {options.version}")
    print(f"\nTagged {tag}. To publish:\n  git push origin {tag}\n  uv publish dist/*")
    return 0


def problems(version: str) -> Iterator[str]:
    """What is not ready for this version."""
    own = (ROOT / "airflow_provider_cdf" / "__init__.py").read_text()
    if f'__version__ = "{version}"' not in own:
        yield f"- airflow_provider_cdf/__init__.py does not say {version}"
    if not re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ):
        yield f"- CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'"
    if git("status", "--porcelain"):
        yield "- not everything is committed"
    if git("tag", "--list", f"v{version}"):
        yield f"- the tag v{version} exists"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def run(*command: str) -> None:
    print("==", *command, flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
