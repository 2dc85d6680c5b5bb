"""The dashboard and the alerts of the docs ask for metrics and labels that the library emits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, Sum
from trio.testing import wait_all_tasks_blocked

from tests.instruments.busy import be_busy
from tests.instruments.telemetry import make_telemetry
from tests.testing.driver import NO_WAITING
from trio_responses.otel import OpenTelemetryInstrument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import Metric

    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING
DOCS: Final = Path(__file__).parents[2] / "docs"
WORD: Final = re.compile(r"[a-z_][a-z0-9_]*")
FUNCTIONS: Final = frozenset(
    {"and", "by", "histogram_quantile", "increase", "label_values", "max", "rate", "sum"}
)
LABELS_OF_PROMETHEUS: Final = {"job", "le"}
UNITS: Final = {"s": "_seconds", "By": "_bytes"}


def expressions() -> Iterator[str]:
    """Return every expression of the dashboard and of the table of alerts."""
    dashboard = msgspec.json.decode((DOCS / "dashboards" / "grafana.json").read_bytes())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    page = (DOCS / "instruments.md").read_text(encoding="utf-8")
    alerts = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", page, re.MULTILINE)
    yield from (one for one in alerts if "(" in one)


def series_of(metric: Metric) -> set[str]:
    """Return the names that Prometheus has for a metric, by its rules for OpenTelemetry."""
    base = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_:]", "_", metric.name))
    base += UNITS.get(metric.unit or "", "")
    if isinstance(metric.data, Histogram):
        return {f"{base}_{part}" for part in ("bucket", "count", "sum")}
    monotonic = isinstance(metric.data, Sum) and metric.data.is_monotonic
    return {f"{base}_total" if monotonic else base}


async def emitted(server: ResponsesServer) -> dict[str, set[str]]:
    """Return the labels of each series that a busy program has in Prometheus."""
    telemetry = make_telemetry()
    await be_busy(server, telemetry)
    labels: dict[str, set[str]] = {}
    for metric in telemetry.metrics().values():
        names = {
            name.replace(".", "_") for one in metric.data.data_points for name in one.attributes
        }
        labels |= dict.fromkeys(series_of(metric), names)
    return labels


async def test_each_expression_asks_for_metrics_and_labels_that_exist(
    server: ResponsesServer,
) -> None:
    labels = await emitted(server)
    asked: set[str] = set()
    for expression in expressions():
        bare = re.sub(r'"[^"]*"|\[[^]]*\]|\$\w+|\b[\d.]\w*', "", expression)
        words = set(WORD.findall(bare)) - FUNCTIONS
        metrics = words & labels.keys()
        assert metrics, f"no metric of the library: {expression}"
        known = LABELS_OF_PROMETHEUS.union(*(labels[one] for one in metrics))
        assert words - metrics <= known, f"unknown: {words - metrics - known}: {expression}"
        asked |= metrics
    assert len(asked) > 20


async def test_each_metric_of_the_docs_exists_and_each_one_that_exists_is_in_the_docs(
    server: ResponsesServer,
) -> None:
    telemetry = make_telemetry()
    await be_busy(server, telemetry)
    page = (DOCS / "instruments.md").read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"`((?:gen_ai|db|trio_responses)\.[a-z_.]+)` \| (?:histogram|counter|gauge)", page
        )
    )
    # They need a pool or a proxy that breaks WebSockets.
    rare = {"trio_responses.transport.changes", "trio_responses.endpoint.changes"}
    assert named - rare == telemetry.metrics().keys()


async def test_attributes_of_metrics_have_few_values(server: ResponsesServer) -> None:
    telemetry = make_telemetry()
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        for number in range(120):
            await connection.create(model=f"model-{number}", input="Hello")
    points = telemetry.points()["gen_ai.client.inference.duration"]
    models = {one.attributes["gen_ai.request.model"] for one in points}
    assert len(models) == 101
    assert "_OTHER" in models
    names = {
        name for one in telemetry.points().values() for point in one for name in point.attributes
    }
    assert not {name for name in names if name.endswith(".id")}


async def test_either_set_of_names_of_the_metrics_can_be_chosen(server: ResponsesServer) -> None:
    current, earlier = (
        make_telemetry(metric_names="genai-0.1"),
        make_telemetry(metric_names="1.41"),
    )
    async with server.open_client(
        instruments=[current.instrument, earlier.instrument]
    ) as connection:
        await connection.create(model="m", input="Hello")
    of_turns = [
        {name for name in one.metrics() if name.startswith("gen_ai.client")}
        for one in (current, earlier)
    ]
    assert of_turns == [
        {
            "gen_ai.client.inference.duration",
            "gen_ai.client.inference.time_to_first_chunk",
            "gen_ai.client.inference.usage.cache_read.input_tokens",
            "gen_ai.client.inference.usage.cache_write.input_tokens",
            "gen_ai.client.inference.usage.input_tokens",
            "gen_ai.client.inference.usage.output_tokens",
            "gen_ai.client.inference.usage.reasoning.output_tokens",
        },
        {
            "gen_ai.client.operation.duration",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.client.token.usage",
        },
    ]


async def test_the_counters_of_what_is_open_return_to_zero(server: ResponsesServer) -> None:
    telemetry = make_telemetry()
    await be_busy(server, telemetry)
    points = telemetry.points()
    for name in (
        "trio_responses.turn.active",
        "trio_responses.socket.open",
        "trio_responses.lease.held",
        "trio_responses.buffer.unread",
    ):
        assert [one.value for one in points[name]] == [0], name


async def test_unread_events_are_counted_while_they_wait(server: ResponsesServer) -> None:
    telemetry = make_telemetry()
    server.reply("a long answer " * 100)
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.stream(model="m", input="Hello"),
    ):
        await wait_all_tasks_blocked()
        (point,) = telemetry.points()["trio_responses.buffer.unread"]
        assert point.value == connection.statistics().unread_bytes > 0
        (active,) = telemetry.points()["trio_responses.turn.active"]
        assert active.value == 1


async def test_the_dashboard_has_the_fields_that_grafana_needs() -> None:
    dashboard = msgspec.json.decode((DOCS / "dashboards" / "grafana.json").read_bytes())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    panels: list[dict[str, Any]] = dashboard["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, f"{panel['title']} covers another panel"
        cells |= covered
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        ids = [one["refId"] for one in panel["targets"]]
        assert len(set(ids)) == len(ids) > 0
        used = {
            name for one in panel["targets"] for name in re.findall(r"\$(\w+)", one["expr"])
        } - {"__rate_interval"}
        assert used <= variables


async def test_the_exporter_for_prometheus_has_the_same_names(server: ResponsesServer) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    prometheus_client = pytest.importorskip("prometheus_client")
    meters = MeterProvider([exporter.PrometheusMetricReader()])
    telemetry = make_telemetry()
    telemetry.instrument = OpenTelemetryInstrument(meter_provider=meters)
    try:
        await be_busy(server, telemetry)
        text = prometheus_client.generate_latest().decode()
    finally:
        meters.shutdown()
    exported = set(re.findall(r"^((?:gen_ai|db|trio_responses)_\w+)\{", text, re.MULTILINE))
    assert exported == (await emitted(server)).keys()
