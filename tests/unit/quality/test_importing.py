"""Great Expectations can be imported where the main module has no file."""

import subprocess
import sys


def test_a_process_without_a_main_file_survives_the_import() -> None:
    program = "import rag_core.quality.suites, sys; print(hasattr(sys.modules['__main__'], '__file__'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
