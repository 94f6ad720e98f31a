"""The Python package as its users get it: built, installed from the wheel into a fresh environment, and
there its tests, a line each, and its types."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "python"


class Lines:
    """A line for each test, as `run.py` reads them."""

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::")[-1].removeprefix("test_").replace("_", " ")
        if report.failed:
            print(f"\nFAIL {name} ({report.when})")
        elif report.when == "call":
            print(f"\nok   {name}", flush=True)


def run_tests():
    sys.exit(pytest.main(["-s", "-q", "-p", "no:cacheprovider", str(SOURCE / "tests")], plugins=[Lines()]))


def installed(directory):
    """A fresh environment that has the package; its Python."""
    copy = directory / "source"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("tests", "__pycache__", "build", "*.egg-info"))
    # A wheel that is built from the source distribution.
    subprocess.run([sys.executable, "-m", "build", "--outdir", directory / "dist", copy], check=True, capture_output=True)
    (wheel,) = (directory / "dist").glob("*.whl")
    (_,) = (directory / "dist").glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    python = directory / "venv/bin/python"
    version = pytest.__version__
    subprocess.run([python, "-m", "pip", "install", "-q", wheel, f"pytest=={version}"], check=True)
    return python


def main():
    with tempfile.TemporaryDirectory(prefix="golem-vpn-package-") as directory:
        directory = Path(directory)
        python = installed(directory)
        print("ok   the wheel installs", flush=True)
        code = subprocess.run([python, __file__, "tests"], check=False).returncode
        # From elsewhere, so that it is the installed package that is looked at.
        strict = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir=/dev/null"]
        types = subprocess.run([*strict, "-p", "golem_vpn"], cwd=directory, check=False).returncode
    print("ok   the types hold" if types == 0 else "FAIL the types do not hold")
    sys.exit(code or types)


if __name__ == "__main__":
    run_tests() if "tests" in sys.argv else main()
