"""Great Expectations can be imported in processes whose main module has no file, such as those that Dagster spawns."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_process_without_a_main_file_survives_the_import() -> None:
    """It imports Spark Connect, which ends such a process with exit code 0 where its own dependencies are missing."""
    program = "import rag_core.quality.suites, os; print(os.environ['GX_ANALYTICS_ENABLED'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
