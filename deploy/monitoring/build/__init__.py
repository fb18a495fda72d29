"""Grafana's dashboards as code: `python -m deploy.monitoring.build` writes deploy/monitoring/dashboards."""
