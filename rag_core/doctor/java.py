"""The Java that Spark needs on this machine."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rag_core.config_spark import SparkConfig
from rag_core.doctor.finding import Finding
from rag_core.errors import PermanentError

MIN_JAVA = 17
_JAVA_TIMEOUT_S = 20.0
_JAVA_REMEDY = (
    "install one (Debian, Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17; "
    "or https://adoptium.net) and set JAVA_HOME if it is not first on the PATH"
)


def require_java(env: Mapping[str, str] | None = None) -> None:
    """Make sure that Spark can start.

    Raises:
        PermanentError: Java is missing or too old; the message is one sentence with what to do.
    """
    problem = _java_problem(os.environ if env is None else env)
    if problem:
        raise PermanentError(f"{problem}: {_JAVA_REMEDY}.")


def find_java(spark: SparkConfig, env: Mapping[str, str]) -> Finding:
    """Look for the Java of jobs that are driven from this machine."""
    if spark.remote is not None:
        return Finding("Java", "ok", "not needed here: Spark Connect drives the jobs")
    problem = _java_problem(env)
    if problem:
        return Finding("Java", "warn", f"{problem}; changes of few objects do without", _JAVA_REMEDY)
    return Finding("Java", "ok", f"version {_java_version(_java_program(env))}")


def _java_problem(env: Mapping[str, str]) -> str | None:
    program = _java_program(env)
    if program is None:
        return f"Java {MIN_JAVA} or newer is needed for Spark and none was found"
    version = _java_version(program)
    if version is None:
        return f"Java {MIN_JAVA} or newer is needed for Spark and {program} does not run"
    if version < MIN_JAVA:
        return f"Java {MIN_JAVA} or newer is needed for Spark and {program} is version {version}"
    return None


def _java_program(env: Mapping[str, str]) -> str | None:
    """Find the program as Spark does: JAVA_HOME first, then the PATH."""
    home = env.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else shutil.which("java", path=env.get("PATH", os.defpath))


def _java_version(program: str | None) -> int | None:
    """Return the major version; None if the program does not run or says none."""
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # Java 8 calls itself 1.8
    return int(found[1]) if found and done.returncode == 0 else None
