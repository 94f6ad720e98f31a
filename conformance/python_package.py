"""The tests of the Python package, a line each, and its types."""

import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parent.parent / "python"


class Lines:
    """A line for each test, as `run.py` reads them."""

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::")[-1].removeprefix("test_").replace("_", " ")
        if report.failed:
            print(f"\nFAIL {name} ({report.when})")
        elif report.when == "call":
            print(f"\nok   {name}", flush=True)


def main():
    code = pytest.main(["-s", "-q", "-p", "no:cacheprovider", str(PYTHON / "tests")], plugins=[Lines()])
    strict = [sys.executable, "-m", "mypy", "--strict", "--cache-dir=/dev/null", "-p", "golem_vpn"]
    types = subprocess.run(strict, cwd=PYTHON, check=False).returncode
    print("ok   the types hold" if types == 0 else "FAIL the types do not hold")
    sys.exit(code or types)


main()
