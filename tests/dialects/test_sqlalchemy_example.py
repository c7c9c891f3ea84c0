"""The ORM's pizza orders: run as their README says, with deliberate conflicts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from dsql_server.testing import LocalCluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_rush_hour_leaves_the_stock_right(dsql_cluster: LocalCluster, dsql_url: str) -> None:
    path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pizza_orm", dsql_url],
        env={**dsql_cluster.environ(os.environ), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("1 Margherita") == 8
    assert "2 Diavola, 1 Margherita, 28.50" in finished.stdout
    assert re.findall(r"left over: (.*)", finished.stdout) == ["{'Diavola': 84, 'Margherita': 92}", "84"]
    lost = re.search(r"run again: (\d+)", finished.stdout)
    assert lost is not None and int(lost[1]) > 0
