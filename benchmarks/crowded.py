"""Runs all tests again and again while busy loops take the processors: a test that knows the machine's speed fails
here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

LOOP = (sys.executable, "-c", "while True: pass")
TESTS = (sys.executable, "-m", "pytest", "-n", "4", "--dist", "worksteal", "-p", "no:cacheprovider")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs [default: 20]")
    parser.add_argument("--loops", type=int, default=4, help="busy loops beside them [default: 4]")
    parser.add_argument("tests", nargs="*", help="what to run [default: all tests]")
    options = parser.parse_args()
    loops = [subprocess.Popen(LOOP) for _ in range(options.loops)]
    failed = 0
    try:
        for number in range(options.times):
            print(f"== run {number + 1} of {options.times}", flush=True)
            failed += subprocess.run([*TESTS, *options.tests], check=False).returncode != 0
    finally:
        for loop in loops:
            loop.kill()
    sys.exit(f"{failed} of {options.times} runs failed" if failed else 0)


if __name__ == "__main__":
    main()
