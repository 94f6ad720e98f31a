"""An example of the Rust SDK, as its documentation shows it."""

import os
import subprocess
import sys

WANTED = {"rent": ["from payload to payload: hello", "through the gate: hello"]}


def main(program, name):
    run = [program, os.environ["CONFORMANCE_IMAGE_TAG"]]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    print(done.stdout + done.stderr)
    for line in WANTED[name]:
        print(f"{'ok  ' if line in done.stdout.splitlines() else 'FAIL'} {line}")
    sys.exit(done.returncode)


main(*sys.argv[1:])
