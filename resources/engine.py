"""The engine of parsing and chunking: Spark for large changes, this process for small ones."""

import dagster as dg
from pydantic import PrivateAttr

from rag_core.engine.base import AutoEngine, Engine
from rag_core.engine.in_process import InProcessEngine
from resources.platform import PlatformResource


class EngineResource(dg.ConfigurableResource["EngineResource"]):
    """Makes the engine of the configuration; a Spark session starts at the first large change and ends with the run."""

    platform: dg.ResourceDependency[PlatformResource]

    _engine: Engine | None = PrivateAttr(default=None)
    _spark: object | None = PrivateAttr(default=None)

    def engine(self) -> Engine:
        """Return the engine."""
        if self._engine is None:
            from rag_core.engine.spark import SparkEngine

            spark = SparkEngine(self.platform.config.spark)
            self._spark = spark
            self._engine = AutoEngine(InProcessEngine(), spark, self.platform.config.spark)
        return self._engine

    def release(self) -> None:
        """Stop Spark, if it was started; the next large change starts it again."""
        from rag_core.engine.spark import SparkEngine

        if isinstance(self._spark, SparkEngine):
            self._spark.close()
        self._engine = self._spark = None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Stop Spark at the end of a run."""
        self.release()
