"""Types of `rag.yaml` that say how fresh the index is kept, how that is watched, and who is told."""

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from rag_core.config_base import HttpAddress, Section


class Objective(Section):
    """The freshness that is promised of a source."""

    target: float = Field(
        default=0.99, gt=0, lt=1, description="Share of changes that must be searchable within `within_s`."
    )
    within_s: float = Field(
        default=300.0, gt=0, description="From the change at the source until it is verified as searchable."
    )
    window_days: int = Field(default=30, ge=1, le=365, description="Days over which the share is taken.")
    hard_limit_s: float = Field(
        default=3600.0,
        gt=0,
        description="Age of the oldest change that is not searchable yet; above it, alert at once.",
    )

    @model_validator(mode="after")
    def _limit_above_objective(self) -> "Objective":
        if self.hard_limit_s < self.within_s:
            raise ValueError("hard_limit_s must not be below within_s")
        return self


class FreshnessConfig(Section):
    """How changes of sources are found, and what freshness is promised."""

    objective: Objective = Field(
        default_factory=Objective, description="For sources without an objective of their own."
    )
    tick_s: int = Field(default=5, ge=1, description="Seconds between two looks at a source.")
    settle_s: float = Field(
        default=1.0, ge=0, description="An object that changed less than this ago is left to be written to its end."
    )
    settle_max_s: float = Field(
        default=60.0, ge=0, description="An object that never settles is taken after this long."
    )
    list_budget_s: float = Field(
        default=20.0, gt=0, description="Time for listing in one look; the next one goes on from there."
    )
    max_shrink: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of a source's known objects that may vanish at once. More is taken for a source that is not "
        "there (an unmounted folder, a wrong prefix): nothing is deleted.",
    )
    shrink_from: int = Field(
        default=10, ge=0, description="So many objects may always vanish, whatever share of the source they are."
    )
    fast_burn: float = Field(
        default=14.4,
        gt=0,
        description="Rate of spending the error budget, over 1 hour and over 5 minutes, that is an emergency: 14.4 "
        "spends 2 % of 30 days' budget in an hour.",
    )
    slow_burn: float = Field(
        default=6.0, gt=0, description="The same over 6 hours and over 30 minutes, that needs a look the same day."
    )
    evaluate_s: int = Field(default=30, ge=5, description="Seconds between two evaluations of the objectives.")


class SqsEvents(Section):
    """S3 event notifications through an SQS queue: the source is told instead of listed at every look."""

    queue_url: HttpAddress = Field(description="Address of the queue. Several sources must not share one.")
    batch: int = Field(default=1_000, ge=1, description="Messages that one look takes at most.")
    wait_s: int = Field(default=1, ge=0, le=20, description="How long one request waits for messages.")
    list_every_s: int = Field(
        default=3600, ge=60, description="The prefix is listed this often all the same: notifications can be lost."
    )


class RunConfig(Section):
    """How partitions are packed into runs, and how what failed is tried again."""

    max_partitions_per_run: int = Field(default=32, ge=1, description="Upper bound for one run.")
    max_objects_per_run: int = Field(
        default=1_000,
        ge=1,
        description="Changed objects that one run takes; a partition with more is a run of its own. Short runs let "
        "fresh changes through while much is done.",
    )
    concurrent_runs: int = Field(
        default=2,
        ge=1,
        description="Runs of partitions at once; of heavy ones and backfills one less, but at least one.",
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Tries of a partition that fails transiently before it is reported as stuck."
    )
    retry_after_s: float = Field(
        default=10.0, ge=0, description="Wait before the second try; doubled for each further."
    )
    retry_at_most_s: float = Field(
        default=900.0, ge=0, description="Longest wait between two tries; a stuck partition is tried at this pace."
    )


class AutomationConfig(Section):
    """What Dagster starts by itself. Times are UTC."""

    enabled: bool = Field(default=True, description="Whether sensors and schedules are on from the start.")
    publish_cron: str = Field(
        default="* * * * *", description="When changed tables are tested, and the index is judged and published."
    )
    reconcile_cron: str = Field(
        default="0 2 * * *", description="When every object of every source is compared with every ledger."
    )
    retention_cron: str = Field(
        default="30 3 * * *", description="When old rows, versions and collections are removed."
    )
    backup_cron: str = Field(default="0 1 * * *", description="When a snapshot is taken, if `backup.to` is set.")


class RetentionConfig(Section):
    """How long is kept what is no longer served."""

    changes_days: int = Field(
        default=90, ge=1, description="Changes of sources, passes over partitions, alerts; at least every window_days."
    )
    results_days: int = Field(default=90, ge=1, description="Results of declared tests.")
    receipts_days: int = Field(default=730, ge=1, description="Receipts of deleted documents.")
    answers_days: int = Field(default=90, ge=1, description="Answers, feedback and counts of questions.")


class WebhookConfig(Section):
    """Alerts as JSON by HTTP POST. Without an address: none."""

    url: SecretStr | None = Field(default=None, description="Secret, only from RAG_ALERTS__WEBHOOK__URL.")
    format: Literal["json", "slack"] = Field(
        default="json",
        description="`json`: all that is known; `slack`: for incoming webhooks of Slack and what takes them.",
    )
    timeout_s: float = Field(default=10.0, gt=0, description="Time limit of one delivery.")


class EmailConfig(Section):
    """Alerts by e-mail. Without a host: none."""

    host: str | None = Field(default=None, description="SMTP server.")
    port: int = Field(default=587, ge=1, le=65_535, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is secured."
    )
    user: str | None = Field(default=None, description="User name; empty: no login.")
    password: SecretStr | None = Field(default=None, description="Secret, only from RAG_ALERTS__EMAIL__PASSWORD.")
    sender: str = Field(default="rag-assets@localhost", description="From.")
    to: tuple[str, ...] = Field(default=(), description="Recipients.")
    timeout_s: float = Field(default=10.0, gt=0, description="Time limit of one delivery.")

    @model_validator(mode="after")
    def _has_recipients(self) -> "EmailConfig":
        if self.host and not self.to:
            raise ValueError("a host needs recipients in `to`")
        return self


class AlertsConfig(Section):
    """Who is told when something is wrong, and again when it is well. The log always is."""

    webhook: WebhookConfig = Field(default_factory=WebhookConfig, description="HTTP POST.")
    email: EmailConfig = Field(default_factory=EmailConfig, description="SMTP.")
    repeat_s: int = Field(default=14_400, ge=60, description="What goes on is told again after this long.")
    ui_url: HttpAddress = Field(
        default="http://127.0.0.1:3000", description="Address of the Dagster UI; links in alerts begin with it."
    )
    evaluate_s: int = Field(default=15, ge=5, description="Seconds between two looks at what is wrong.")
