"""The example of the README, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import golem_vpn
from conftest import ROOT
from test_rental import nothing_left


def test_the_example_of_the_readme_runs(world):
    text = (ROOT / "python/README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(golem_vpn.__file__).parents[1]),
        "GVPN_API_URL": world.requestor.url,
        "GVPN_APPKEY": world.requestor.key,
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "the payload's web server is at http://127.0.0.1:" in done.stdout
    nothing_left(world)
