"""Runs all tests at other times than now: around midnight, on odd days, a year ahead, in other time zones. Nothing may
differ.

Needs `faketime` (Debian: apt-get install faketime). Monotonic clocks stay as they are: only the calendar and the time
of day are moved. Tests marked `own_clock`, which faketime does not reach or is in the way of, are left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

TESTS = (
    "-m",
    "pytest",
    "-n",
    "4",
    "--dist",
    "worksteal",
    "-m",
    "not own_clock",
    "-p",
    "no:cacheprovider",
    "-p",
    "benchmarks.sleep_under_faketime",
)


def moments(now: datetime) -> dict[str, tuple[str, str]]:
    """Title → moment as faketime takes it (UTC), and time zone.

    All lie ahead, so that nothing made before is from the future.
    """
    year = now.year + 1
    leap = next(y for y in range(year, year + 9) if y % 4 == 0 and (y % 100 or y % 400 == 0))
    tomorrow = now + timedelta(days=1)
    return {
        "just before midnight": (f"{tomorrow:%Y-%m-%d} 23:59:50", "UTC"),
        "just after midnight": (f"{tomorrow:%Y-%m-%d} 00:00:10", "UTC"),
        "29 February": (f"{leap}-02-29 12:00:00", "UTC"),
        "the last seconds of a year": (f"{year}-12-31 23:59:50", "UTC"),
        "a year ahead": (f"{now + timedelta(days=366):%Y-%m-%d %H:%M:%S}", "UTC"),
        "east of Greenwich": (f"{tomorrow:%Y-%m-%d} 00:30:00", "Asia/Kolkata"),
        "west of Greenwich": (f"{tomorrow:%Y-%m-%d} 23:30:00", "America/Los_Angeles"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the title of the moments to try")
    parser.add_argument("tests", nargs="*", help="what to run [default: all tests]")
    options = parser.parse_args()
    program = shutil.which("faketime")
    if program is None:
        sys.exit("faketime is not installed: apt-get install faketime")
    failed = []
    for title, (moment, zone) in moments(datetime.now(UTC)).items():
        if options.only not in title:
            continue
        print(f"== {title}: {moment} {zone}", flush=True)
        environment = os.environ | {"TZ": zone, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "CI": "true"}
        command = [program, "-m", moment, sys.executable, *TESTS, *options.tests]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(title)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
