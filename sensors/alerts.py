"""The sensor that looks at what is wrong, and tells of it. What is wrong is decided in `rag_core.alerts`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from rag_core.alerts import reading, rules, source_rules
from rag_core.alerts.book import AlertBook
from rag_core.alerts.channels import configured_channels
from rag_core.alerts.delivery import Outcome
from rag_core.alerts.failing import FailingRun, fold
from rag_core.alerts.model import Alert, Finding
from rag_core.config import RagConfig
from rag_core.errors import RagError
from rag_core.tables.store import Store
from sensors.run_facts import ended_runs, is_busy, newest_check

ALERT_SENSOR: Final = "alerts"

_LOG = logging.getLogger(__name__)
_LOOK_BACK: Final = timedelta(hours=1)  # at the very first evaluation
_GAP: Final = timedelta(minutes=5)  # longer between two evaluations, and the platform was off


@dataclass(frozen=True)
class Memory:
    """The sensor's cursor.

    Attributes:
        runs_until: Runs that ended until then are known.
        evaluated_at: When the last evaluation was.
        watched_since: When the first was, since when there was no gap.
        failing: What fails, by scope.
    """

    runs_until: datetime
    evaluated_at: datetime
    watched_since: datetime
    failing: Mapping[str, FailingRun] = field(default_factory=dict)


_MEMORY: Final = TypeAdapter(Memory)


def build_alert_sensor(config: RagConfig) -> dg.SensorDefinition:
    """Make the sensor. It starts nothing: each evaluation is a tick that was skipped, with a summary."""
    store = Store.of(config.store)
    facts = _Facts(store, config)

    @dg.sensor(
        name=ALERT_SENSOR,
        minimum_interval_seconds=config.alerts.evaluate_s,
        default_status=dg.DefaultSensorStatus.RUNNING if config.automation.enabled else dg.DefaultSensorStatus.STOPPED,
        description="Tells by log, webhook and e-mail what is wrong, once when it begins and once when it ended.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = datetime.now(UTC)
        memory = _remembered(context.cursor, now, gap=max(_GAP, timedelta(seconds=4 * config.alerts.evaluate_s)))
        try:
            memory, summary = _evaluate(context, facts, memory, now)
        except Exception as error:  # noqa: BLE001
            # What tells of failures must not be what fails: the next evaluation takes everything again.
            _LOG.exception("alerts were not evaluated")
            summary = f"alerts were not evaluated: {type(error).__name__}: {error}"
        context.update_cursor(_MEMORY.dump_json(memory).decode())
        return dg.SkipReason(summary)

    return alerts


def _evaluate(
    context: dg.SensorEvaluationContext, facts: "_Facts", memory: Memory, now: datetime
) -> tuple[Memory, str]:
    """Look at what is wrong, keep it in the book, deliver; return what to remember, and a summary."""
    look = _Look(facts, context.instance, _location(context), memory, now)
    findings, broken = rules.evaluate(look.rules())
    memory = look.memory
    config = facts.config.alerts
    try:
        with AlertBook.locked(facts.store, repeat_s=config.repeat_s) as book:
            told = book.update(findings, now, unknown=broken)
            outcomes = book.deliver(configured_channels(config), now)
            problem = _attempt(book.write_history)
            open_alerts = len(book.open)
    except RagError as error:  # another process evaluates as well, such as a test of this sensor in the UI
        return memory, f"another evaluation is going on: {error}"
    return memory, _summary(told, open_alerts, outcomes, problem)


class _Facts:
    """What is kept from one evaluation to the next, in this process, so that it is not read again."""

    def __init__(self, store: Store, config: RagConfig) -> None:
        self.store = store
        self.config = config
        self.rejects = reading.RejectRates(store, config)
        self._collection = ""

    @property
    def collection(self) -> str:
        """Collection that rag.yaml asks for; telling it reads files of the model."""
        if not self._collection:
            from rag_core.generation import configured

            self._collection = configured(self.config).collection
        return self._collection


@dataclass
class _Look:
    """One evaluation: its facts, each gathered when a rule asks for it."""

    facts: _Facts
    instance: dg.DagsterInstance
    location: str | None
    memory: Memory
    now: datetime

    def rules(self) -> dict[str, rules.Rule]:
        """Return the rules by the kind of alert that they find."""
        store, config, now = self.facts.store, self.facts.config, self.now
        url = config.alerts.ui_url
        standings = cache(lambda: list(reading.read_standings(store, config, now=now)))
        failing = cache(self._failing)
        found: dict[str, rules.Rule] = {
            "freshness_burn": lambda: source_rules.freshness_burn(standings(), url),
            "freshness_hard_limit": lambda: source_rules.freshness_hard_limit(standings(), url),
            "failed_run": lambda: rules.failed_run(failing(), url),
            "blocked_publication": lambda: rules.blocked_publication(
                reading.read_verdict(store, self.facts.collection), failing(), url, busy=is_busy(self.instance), now=now
            ),
            "stuck_partition": lambda: rules.stuck_partition(reading.read_stuck(store, config, now=now), url),
            "reject_jump": lambda: rules.reject_jump(self.facts.rejects.read(), url),
            "index_dirt": lambda: rules.index_dirt(
                newest_check(self.instance, "index_partitions", "anti_entropy"), url
            ),
            "listing_problem": lambda: source_rules.listing_problem(reading.read_problems(store, config), url, now=now),
            "poison_event": lambda: source_rules.poison_event(reading.read_poison(store, config), url),
        }
        if config.automation.enabled:
            found["missed_look"] = self._missed_look
        return found

    def _missed_look(self) -> list[Finding]:
        store, config = self.facts.store, self.facts.config
        # A source that cannot be listed has an alert of its own; it is looked at all the same.
        told = {one.source for one in reading.read_problems(store, config)}
        return source_rules.missed_look(
            [one for one in reading.read_looks(store, config) if one.source not in told],
            config.alerts.ui_url,
            tick_s=config.freshness.tick_s,
            list_budget_s=config.freshness.list_budget_s,
            watched_since=self.memory.watched_since,
            now=self.now,
        )

    def _failing(self) -> Sequence[FailingRun]:
        """Add the runs that ended since the last evaluation, and remember them once all were read."""
        ended, until = ended_runs(self.instance, self.memory.runs_until, self.location)
        failing = fold(self.memory.failing, ended, self.now)
        self.memory = replace(self.memory, runs_until=until, failing=failing)
        return list(failing.values())


def _remembered(cursor: str | None, now: datetime, *, gap: timedelta) -> Memory:
    """Read the cursor; a new memory if there is none, or it is of another version."""
    fresh = Memory(runs_until=now - _LOOK_BACK, evaluated_at=now, watched_since=now)
    if not cursor:
        return fresh
    try:
        memory = _MEMORY.validate_json(cursor)
    except ValidationError:
        _LOG.exception("the cursor of the sensor %s cannot be read; it is begun anew", ALERT_SENSOR)
        return fresh
    watched_since = now if now - memory.evaluated_at > gap else memory.watched_since
    return replace(memory, evaluated_at=now, watched_since=watched_since)


def _location(context: dg.SensorEvaluationContext) -> str | None:
    origin = context.code_location_origin
    return origin.location_name if origin is not None else None


def _attempt(work: Callable[[], None]) -> str:
    """Do something that can be done later as well; return what went wrong, or nothing."""
    try:
        work()
    except Exception as error:  # noqa: BLE001  # whatever it is: what was told must not be told again because of it
        _LOG.exception("the table of alerts was not written; the next evaluation writes it")
        return f"the table of alerts was not written: {type(error).__name__}"
    return ""


def _summary(told: Sequence[Alert], open_alerts: int, outcomes: Sequence[Outcome], problem: str) -> str:
    """Say in a line what was found and told."""
    begun, ended = (sum(alert.state == state for alert in told) for state in ("firing", "resolved"))
    parts = [f"{open_alerts} open, {begun} new, {ended} ended"]
    parts += [f"{one.waiting} not delivered by {one.channel} ({one.error or 'waits for its next try'})"
              for one in outcomes if one.waiting]  # fmt: skip
    parts += [f"{one.dropped} dropped by {one.channel}" for one in outcomes if one.dropped]
    return "; ".join([*parts, *([problem] if problem else [])])
