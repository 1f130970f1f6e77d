"""Makes the dashboards of this directory with Grafana's own SDK: `cargo xtask dashboards` writes them.

A panel is made by one of the functions at the top, so that all look alike; the three dashboards below are lists of panels.
Queries take recording rules of deploy/prometheus where there are some.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import bargauge, common, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
GREEN, YELLOW, RED = "green", "#EAB839", "red"


# === panels ===


def query(expr, legend="__auto", instant=False, ref="A"):
    target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(SOURCE)
    if instant:
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range()


def thresholds(*steps):
    """Colours from a value on; the first one from the bottom."""
    found = [models.Threshold(value=value, color=color) for value, color in steps]
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


USE = thresholds((None, GREEN), (0.85, YELLOW), (0.99, RED))
BAD = thresholds((None, GREEN), (1, RED))
GOOD = thresholds((None, RED), (1, GREEN))
PLAIN = thresholds((None, "blue"))


def framed(panel, title, says, width, height):
    return panel.title(title).description(says).datasource(SOURCE).span(width).height(height)


def number(title, says, expr, legend="__auto", unit="short", limits=PLAIN, width=4, none="none"):
    target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id("A").datasource(SOURCE).instant()
    panel = framed(stat.Panel(), title, says, width, 4).with_target(target).unit(unit).thresholds(limits).no_value(none)
    return panel.graph_mode(common_models.BigValueGraphMode.NONE).color_mode(common_models.BigValueColorMode.VALUE)


def lines(title, says, *queries, unit="short", width=12, height=8, stacked=False, top=None, limits=None):
    panel = framed(timeseries.Panel(), title, says, width, height).unit(unit).fill_opacity(10).min(0)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.RIGHT)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel = panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL)).fill_opacity(40)
    if top is not None:
        panel = panel.max(top)
    if limits is not None:
        panel = panel.thresholds(limits).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.LINE)
        )
    for place, (expr, legend) in enumerate(queries):
        panel = panel.with_target(query(expr, legend, ref=chr(ord("A") + place)))
    return panel


def bars(title, says, expr, legend, unit="percentunit", limits=USE, width=12, height=10, top=1):
    target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id("A").datasource(SOURCE).instant()
    panel = (
        framed(bargauge.Panel(), title, says, width, height).with_target(target).unit(unit).thresholds(limits).min(0)
    )
    if top is not None:
        panel = panel.max(top)
    return panel.orientation(common_models.VizOrientation.HORIZONTAL)


def rows(title, says, expr, hide=(), names=None, unit=None, width=24, height=9):
    panel = framed(table.Panel(), title, says, width, height).with_target(query(expr, instant=True))
    names = {"Value": "value", **(names or {})}
    left_out = {name: True for name in ("Time", "__name__", "job", "endpoint", "container", "prometheus", *hide)}
    panel = panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": left_out, "renameByName": names})
    )
    if unit is not None:
        unit = [models.DynamicConfigValue(id_val="unit", value=unit)]
        panel = panel.override_by_name(names["Value"], unit)
    return panel


def states(title, says, expr, legend, width=12, height=8):
    panel = framed(statetimeline.Panel(), title, says, width, height).with_target(query(expr, legend))
    return panel.thresholds(GOOD).show_value(common_models.VisibilityMode.NEVER)


def words(content, width=WIDTH, height=3):
    return text.Panel().title("").content(content).span(width).height(height)


# === dashboards ===


def dashboard(uid, title, says, variables, *panels):
    whole = (
        build.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["sekisho"])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("sekisho").type(models.DashboardLinkType.DASHBOARDS).tags(["sekisho"]).keep_time(True)
        )
        .with_variable(build.DatasourceVariable("datasource").label("data source").type("prometheus"))
    )
    for variable in variables:
        whole = whole.with_variable(variable)
    for panel in panels:
        whole = whole.with_row(build.Row(panel)) if isinstance(panel, str) else whole.with_panel(panel)
    return whole


def variable(name, label, values, all_too=True):
    found = (
        build.QueryVariable(name)
        .label(label)
        .query(values)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    return found.multi(True).include_all(True).all_value(".*") if all_too else found


CLUSTER = variable("cluster", "cluster", "label_values(sekisho_build_info, cluster)")
CODES = "code, severity, namespace, workload"


def fleet():
    c = 'cluster=~"$cluster"'
    return dashboard(
        "sekisho-fleet",
        "sekisho / fleet",
        "All nodes: what is found, what runs out, and whether every node is watched.",
        [CLUSTER],
        number("agents", "Agents that answer.", f'sum(up{{job="sekisho",{c}}})', limits=PLAIN),
        number(
            "agents down",
            "Agents that Prometheus knows and that do not answer.",
            f'count(up{{job="sekisho",{c}}}) - sum(up{{job="sekisho",{c}}})',
            limits=BAD,
        ),
        number(
            "findings, critical or high",
            "Workloads with one, those accepted left out.",
            f'count(workload:sekisho_findings_open:nodes{{severity=~"critical|high",{c}}}) or vector(0)',
            limits=BAD,
        ),
        number(
            "findings",
            "Workloads with one, those accepted left out.",
            f"count(workload:sekisho_findings_open:nodes{{{c}}}) or vector(0)",
        ),
        number(
            "pods that fit",
            "More pods of the usual shape, over all nodes.",
            f"sum(cluster:sekisho_node_pods_fit:sum{{{c}}})",
            limits=thresholds((None, RED), (1, GREEN)),
        ),
        number(
            "pods that wait for an address",
            "On their node for more than a minute, without a sandbox.",
            f"sum(sekisho_node_pods_waiting{{{c}}})",
            limits=BAD,
        ),
        "findings",
        rows(
            "open findings",
            "By workload, with the number of nodes. `sekisho explain CODE` says what a code means.",
            f"sort_desc(workload:sekisho_findings_open:nodes{{{c}}})",
            names={"Value": "nodes"},
        ),
        lines(
            "workloads with findings",
            "By code.",
            (f"count by (code) (workload:sekisho_findings_open:nodes{{{c}}})", "{{code}}"),
            stacked=True,
        ),
        lines(
            "findings accepted by a waiver",
            "By code.",
            (f"sum by (code) (sekisho_findings_accepted{{{c}}})", "{{code}}"),
            stacked=True,
        ),
        "metadata services",
        lines(
            "requests without a token (version 1)",
            "Who breaks when tokens are required.",
            (
                f'sum by (namespace, workload) (workload:sekisho_metadata_requests:rate5m{{version="v1",{c}}}) > 0',
                "{{namespace}}/{{workload}}",
            ),
            unit="reqps",
        ),
        lines(
            "node credentials taken",
            "Requests for the node role's credentials that were answered.",
            (
                f'sum by (namespace, workload) (workload:sekisho_metadata_requests:rate5m{{category="role_credentials",outcome="ok",{c}}}) > 0',
                "{{namespace}}/{{workload}}",
            ),
            unit="reqps",
        ),
        "room",
        bars(
            "fullest resources",
            "The highest use of each resource on any node.",
            f"sort_desc(max by (resource) (instance:sekisho_node_capacity_used:ratio{{{c}}}))",
            "{{resource}}",
            height=12,
        ),
        lines(
            "what stops the next pod",
            "Nodes by the resource that binds first.",
            (f"resource:sekisho_node_binding_resource:count{{{c}}}", "{{resource}}"),
            stacked=True,
            height=12,
        ),
        rows(
            "used up within a day",
            "At the pace of lately.",
            f"sort(sekisho_capacity_exhaustion_seconds{{{c}}} < 86400)",
            hide=("namespace", "pod", "node"),
            names={"Value": "in"},
            unit="s",
            width=12,
        ),
        lines(
            "addresses in use by subnet",
            "As EC2 tells them, or as the nodes see them.",
            (f"subnet:sekisho_node_capacity_used:ratio{{{c}}}", "{{scope}}"),
            unit="percentunit",
            top=1,
            limits=USE,
        ),
        "the picture itself",
        lines(
            "records lost",
            "Of all records of the probes; 0 is normal.",
            (
                f"instance:sekisho_records_lost:ratio_rate5m{{{c}}} > 0 or max(instance:sekisho_records_lost:ratio_rate5m{{{c}}})",
                "{{instance}}",
            ),
            unit="percentunit",
        ),
        rows(
            "alerts",
            "Of sekisho, that fire.",
            'ALERTS{alertname=~"Sekisho.*",alertstate="firing"}',
            hide=("Value", "alertstate"),
            width=12,
            height=8,
        ),
    )


def node():
    n = 'cluster=~"$cluster",instance=~"$instance"'
    one = variable("instance", "node", 'label_values(sekisho_build_info{cluster=~"$cluster"}, instance)')
    return dashboard(
        "sekisho-node",
        "sekisho / node",
        "One node: its ceilings, its pods, and how its agent does.",
        [CLUSTER, one],
        number(
            "pods that fit",
            "More pods of the usual shape.",
            f"sum(sekisho_node_pods_fit{{{n}}})",
            limits=thresholds((None, RED), (1, GREEN)),
        ),
        number(
            "stopped by",
            "The resource that stops the next pod.",
            f"sekisho_node_binding_resource{{{n}}} == 1",
            "{{resource}}",
            width=8,
        ).text_mode(common_models.BigValueTextMode.NAME),
        number(
            "pods that wait",
            "For their sandbox, for more than a minute.",
            f"sum(sekisho_node_pods_waiting{{{n}}})",
            limits=BAD,
        ),
        number("findings", "That stand on this node.", f"sum(sekisho_findings_open{{{n}}}) or vector(0)", limits=BAD),
        number("agent", "Its version.", f"sekisho_build_info{{{n}}}", "{{version}}", width=4).text_mode(
            common_models.BigValueTextMode.NAME
        ),
        "ceilings",
        bars(
            "use of each ceiling",
            "By resource and scope.",
            f"sort_desc(instance:sekisho_node_capacity_used:ratio{{{n}}})",
            "{{resource}} {{scope}}",
            height=14,
        ),
        lines(
            "use over time",
            "By resource and scope.",
            (f"instance:sekisho_node_capacity_used:ratio{{{n}}}", "{{resource}} {{scope}}"),
            unit="percentunit",
            top=1,
            limits=USE,
            height=14,
        ),
        lines(
            "time until used up",
            "What grows, at the pace of lately; what does not grow is not shown.",
            (f"sekisho_capacity_exhaustion_seconds{{{n}}} < 604800", "{{resource}} {{scope}}"),
            unit="s",
        ),
        lines(
            "refused for want of room",
            "What the node or the CNI refused, or what hints at it.",
            (f"rate(sekisho_capacity_events_total{{{n}}}[$__rate_interval])", "{{event}}"),
            unit="cps",
        ),
        lines(
            "allowances of the instance exceeded",
            "Packets that were queued or dropped by the network card.",
            (f"rate(sekisho_ena_allowance_exceeded_total{{{n}}}[$__rate_interval])", "{{interface}} {{allowance}}"),
            unit="pps",
        ),
        lines(
            "addresses",
            "In use, and what the interfaces hold.",
            (f'sekisho_node_capacity_used{{resource="pod_ips",{n}}}', "used"),
            (f'sekisho_node_capacity_limit{{resource="pod_ips",{n}}}', "limit"),
        ),
        "pods",
        lines(
            "bytes sent by pod",
            "Through the pod's interface, the ten with most.",
            (
                f'topk(10, sum by (namespace, pod) (rate(sekisho_pod_network_bytes_total{{direction="egress",{n}}}[$__rate_interval])))',
                "{{namespace}}/{{pod}}",
            ),
            unit="Bps",
        ),
        lines(
            "bytes received by pod",
            "Through the pod's interface, the ten with most.",
            (
                f'topk(10, sum by (namespace, pod) (rate(sekisho_pod_network_bytes_total{{direction="ingress",{n}}}[$__rate_interval])))',
                "{{namespace}}/{{pod}}",
            ),
            unit="Bps",
        ),
        lines(
            "packets by pod",
            "Both ways, the ten with most.",
            (
                f"topk(10, sum by (namespace, pod) (rate(sekisho_pod_network_packets_total{{{n}}}[$__rate_interval])))",
                "{{namespace}}/{{pod}}",
            ),
            unit="pps",
        ),
        bars(
            "threads by pod",
            "Of the pod's own limit, the ten nearest to it.",
            f"topk(10, sekisho_pod_threads{{{n}}} / sekisho_pod_threads_limit{{{n}}})",
            "{{namespace}}/{{pod}}",
            width=6,
            height=8,
        ),
        bars(
            "open files by pod",
            "Of the limit of the process that is nearest to it.",
            f"topk(10, sekisho_pod_open_files_ratio{{{n}}})",
            "{{namespace}}/{{pod}}",
            width=6,
            height=8,
        ),
        "the agent",
        states(
            "probes attached",
            "An optional probe that the kernel refused is red.",
            f"sekisho_probe_attached{{{n}}}",
            "{{probe}}",
            width=8,
            height=10,
        ),
        states(
            "looks at the node",
            "A source of figures that cannot be read is red.",
            f"sekisho_collector_success{{{n}}}",
            "{{collector}}",
            width=8,
            height=10,
        ),
        states(
            "calls of the EC2 API",
            "That fail are red; what is not asked is not shown.",
            f"sekisho_ec2_success{{{n}}}",
            "{{call}}",
            width=8,
            height=10,
        ),
        lines(
            "records by fate",
            "Every record of the probes ends in one.",
            (f"sum by (fate) (rate(sekisho_records_total{{{n}}}[$__rate_interval]))", "{{fate}}"),
            unit="cps",
            stacked=True,
        ),
        lines(
            "age of what is known",
            "Of the cluster and of EC2.",
            (f"sekisho_cluster_age_seconds{{{n}}}", "{{source}}"),
            (f"sekisho_ec2_age_seconds{{{n}}}", "EC2 {{call}}"),
            unit="s",
        ),
        lines("history", "Bytes on disk.", (f"sekisho_history_size_bytes{{{n}}}", "size"), unit="bytes", width=6),
        lines(
            "history, rows",
            "Stored and lost.",
            (f"sum by (fate) (rate(sekisho_history_rows_total{{{n}}}[$__rate_interval]))", "{{fate}}"),
            unit="cps",
            width=6,
        ),
        lines(
            "rows that leave the node",
            "Shipped, refused by the collector, lost; where shipping is on.",
            (f"sum by (sink, fate) (rate(sekisho_export_rows_total{{{n}}}[$__rate_interval]))", "{{sink}} {{fate}}"),
            unit="cps",
        ),
        lines(
            "how long rows wait to leave",
            "Age of the oldest; it grows while the collector is away.",
            (f"sekisho_export_oldest_age_seconds{{{n}}}", "{{sink}}"),
            unit="s",
        ),
        lines(
            "how long looks take",
            "By source.",
            (f"sekisho_collector_duration_seconds{{{n}}}", "{{collector}}"),
            unit="s",
        ),
        lines(
            "not followed, suppressed, left out",
            "What a bound of the agent cost.",
            (f"sum by (what) (rate(sekisho_untracked_total{{{n}}}[$__rate_interval]))", "{{what}}"),
            (f"sum by (metric) (rate(sekisho_series_suppressed_total{{{n}}}[$__rate_interval]))", "{{metric}}"),
            (f"rate(sekisho_findings_refused_total{{{n}}}[$__rate_interval])", "findings"),
            (f"rate(sekisho_capacity_left_out_total{{{n}}}[$__rate_interval])", "ceilings"),
            (f"sum by (reason) (rate(sekisho_cluster_left_out_total{{{n}}}[$__rate_interval]))", "objects {{reason}}"),
            unit="cps",
        ),
        lines(
            "Kubernetes events",
            "By what became of them.",
            (f"rate(sekisho_kubernetes_events_total{{{n}}}[$__rate_interval])", "{{outcome}}"),
            unit="cps",
        ),
        rows(
            "gaps",
            "When the last gap of each cause ended.",
            f"sekisho_last_gap_end_timestamp_seconds{{{n}}} * 1000",
            hide=("namespace", "pod", "node"),
            names={"Value": "ended"},
            unit="dateTimeAsIso",
            width=12,
            height=8,
        ),
    )


def investigation():
    w = 'cluster=~"$cluster",namespace=~"$namespace",workload=~"$workload"'
    namespace = variable("namespace", "namespace", "label_values(sekisho_connections_total, namespace)")
    workload = variable(
        "workload", "workload", 'label_values(sekisho_connections_total{namespace=~"$namespace"}, workload)'
    )
    return dashboard(
        "sekisho-investigation",
        "sekisho / investigation",
        "One workload: what it took, whom it talks to, what was found. Addresses, processes and access key ids stand in the history on its node: `sekisho timeline --pod NAMESPACE/POD`.",
        [CLUSTER, namespace, workload],
        words(
            "Metrics say how much and of which kind. **Who** (addresses, processes, access key ids) stands in the history on the node: `sekisho timeline --pod NAMESPACE/POD --since 24h`."
        ),
        "what was found",
        rows(
            "open findings",
            "With the number of nodes.",
            f"workload:sekisho_findings_open:nodes{{{w}}}",
            names={"Value": "nodes"},
            width=12,
        ),
        lines(
            "findings that opened",
            "By code, in this namespace.",
            ('sum by (code) (increase(sekisho_findings_total{namespace=~"$namespace"}[$__rate_interval]))', "{{code}}"),
            height=9,
        ),
        "what it took from metadata services",
        lines(
            "requests by what was asked",
            "Credentials are role_credentials, identity_credentials and pod_identity_credentials.",
            (
                f"sum by (service, category, outcome) (rate(sekisho_metadata_requests_total{{{w}}}[$__rate_interval]))",
                "{{service}} {{category}} {{outcome}}",
            ),
            unit="reqps",
        ),
        lines(
            "with and without a token",
            "v1 is without.",
            (f"sum by (version) (rate(sekisho_metadata_requests_total{{{w}}}[$__rate_interval]))", "{{version}}"),
            unit="reqps",
        ),
        "what it asks DNS",
        lines(
            "queries by what came of them",
            "By UDP to port 53.",
            (f"sum by (outcome) (rate(sekisho_dns_queries_total{{{w}}}[$__rate_interval]))", "{{outcome}}"),
            unit="reqps",
        ),
        lines(
            "queries that the search list costs",
            "Names with a search domain behind them that do not exist, before the name itself was found: ndots.",
            (f"sum (rate(sekisho_dns_search_waste_total{{{w}}}[$__rate_interval]))", "wasted"),
            unit="reqps",
        ),
        "whom it talks to",
        lines(
            "bytes sent, by class of peer",
            "Payload of TCP and UDP.",
            (
                f'sum by (peer_class) (rate(sekisho_connection_bytes_total{{direction="egress",{w}}}[$__rate_interval]))',
                "{{peer_class}}",
            ),
            unit="Bps",
            stacked=True,
        ),
        lines(
            "bytes received, by class of peer",
            "Payload of TCP and UDP.",
            (
                f'sum by (peer_class) (rate(sekisho_connection_bytes_total{{direction="ingress",{w}}}[$__rate_interval]))',
                "{{peer_class}}",
            ),
            unit="Bps",
            stacked=True,
        ),
        lines(
            "connections that ended",
            "By direction, class of peer and outcome.",
            (
                f"sum by (direction, peer_class, outcome) (rate(sekisho_connections_total{{{w}}}[$__rate_interval]))",
                "{{direction}} {{peer_class}} {{outcome}}",
            ),
            unit="cps",
        ),
        lines(
            "connections that failed",
            "Part of those that it opened. A security group that refuses shows as timed_out.",
            (
                f'sum by (peer_class) (rate(sekisho_connections_total{{direction="outbound",outcome=~"timed_out|refused|unreachable|denied",{w}}}[$__rate_interval])) / sum by (peer_class) (rate(sekisho_connections_total{{direction="outbound",{w}}}[$__rate_interval]))',
                "{{peer_class}}",
            ),
            unit="percentunit",
            top=1,
        ),
        lines(
            "segments sent again",
            "By class of peer.",
            (f"sum by (peer_class) (rate(sekisho_tcp_retransmits_total{{{w}}}[$__rate_interval]))", "{{peer_class}}"),
            unit="cps",
        ),
        lines(
            "round trip time, all workloads",
            "95th percentile of connections that ended, by class of peer.",
            (
                "histogram_quantile(0.95, sum by (le, peer_class) (rate(sekisho_tcp_rtt_seconds_bucket[$__rate_interval])))",
                "{{peer_class}}",
            ),
            unit="s",
        ),
        "what could not be told",
        lines(
            "verdicts",
            "cannot_tell is an answer: `sekisho findings` gives the reasons.",
            ("sum by (verdict) (rate(sekisho_verdicts_total[$__rate_interval]))", "{{verdict}}"),
            unit="cps",
        ),
        lines(
            "cannot tell, by code",
            "Over all nodes.",
            (
                'topk(10, sum by (code) (rate(sekisho_verdicts_total{verdict="cannot_tell"}[$__rate_interval])))',
                "{{code}}",
            ),
            unit="cps",
        ),
    )


def main():
    directory = pathlib.Path(sys.argv[1])
    for name, whole in {"fleet": fleet(), "node": node(), "investigation": investigation()}.items():
        # The SDK's own objects first, then keys in order: a change shows as what it is.
        plain = json.loads(JSONEncoder().encode(whole.build()))
        path = directory / f"{name}.json"
        path.write_text(json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
