"""A destination that another package brings, found by its entry point; the example of CONTRIBUTING.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.conftest import Collector
from tests.e2e.processes import configuration, handler, simulated

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def installed(directory: Path) -> Path:
    """The package of the guide as pip would install it."""
    (module,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    (directory / "toy_sink.py").write_text(module)
    about = directory / "toy_sink-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-sink\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[event_handler.sinks]\ntoy = toy_sink:SINK\n")
    return directory


async def test_it_is_delivered_to(tmp_path: Path, collector: Collector) -> None:
    async with simulated(tmp_path / "sim", "--events=200", "--sessions=2") as ready:
        config = configuration(tmp_path, ready, collector)
        path = tmp_path / "toy"
        config.write_text(f'{config.read_text()}\n[sinks.mine]\ntype = "toy"\nfile = "{path}"\ngreeting = "hello"\n')
        (tmp_path / "packages").mkdir()
        packages = str(installed(tmp_path / "packages"))
        process = await handler(config, "--exit-on-last-event", PYTHONPATH=packages)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]
    manifest = json.loads((tmp_path / "sim" / "manifest.json").read_text())
    lines = path.read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"hello"}
    assert {line.split()[1] for line in lines} >= set(manifest["events"])
    assert (tmp_path / "storage" / ready["cluster"] / "mine" / "state.db").exists()
