#!/usr/bin/env bash
# What a container of the Spark image runs:
#   connect [options of spark-submit]   the Spark Connect server, which is the driver
#   executor                            an executor, as Spark's Kubernetes scheduler starts its pods
#   anything else                       that command
# The package pyspark has Spark's programs and jars, and not the entry point of Apache's own image. What an executor is
# told by variables: https://github.com/apache/spark, resource-managers/kubernetes, BasicExecutorFeatureStep.
set -euo pipefail

case "${1:-connect}" in
  connect)
    shift || true
    exec "${SPARK_HOME}/bin/spark-submit" --class org.apache.spark.sql.connect.service.SparkConnectServer "$@" spark-internal
    ;;
  executor)
    # SPARK_JAVA_OPT_0, _1, ... in their order.
    mapfile -t java_options < <(env | grep -E '^SPARK_JAVA_OPT_[0-9]+=' | sort -t_ -k4 -n | cut -d= -f2-)
    exec java "${java_options[@]}" "-Xms${SPARK_EXECUTOR_MEMORY}" "-Xmx${SPARK_EXECUTOR_MEMORY}" \
      -cp "${SPARK_CONF_DIR:-/opt/spark/conf}:${SPARK_HOME}/jars/*${SPARK_EXTRA_CLASSPATH:+:${SPARK_EXTRA_CLASSPATH}}" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "${SPARK_DRIVER_URL}" \
      --executor-id "${SPARK_EXECUTOR_ID}" \
      --cores "${SPARK_EXECUTOR_CORES}" \
      --app-id "${SPARK_APPLICATION_ID}" \
      --hostname "${SPARK_EXECUTOR_POD_IP}" \
      --resourceProfileId "${SPARK_RESOURCE_PROFILE_ID}" \
      --podName "${SPARK_EXECUTOR_POD_NAME}"
    ;;
  *)
    exec "$@"
    ;;
esac
