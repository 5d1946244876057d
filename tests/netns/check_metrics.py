#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whether what the daemon exports is OpenMetrics, and whether a dashboard and alert rules speak of it.

usage: check_metrics.py METRICS.txt [DASHBOARD.json ALERTS.yaml]

The text is read by the parser of the Prometheus client library. Then every metric, label and known word in the
expressions of both files has to be in it. Prints one line per complaint.
"""

import json
import re
import sys

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

# Labels that Prometheus adds, and metrics that it makes.
TARGET_LABELS = {"instance", "job", "le"}
TARGET_METRICS = {"up"}
# Labels whose words all are exported from the start.
CLOSED_LABELS = {"reason", "outcome", "where", "table", "state", "resource"}

FUNCTIONS = {"sum", "rate", "increase", "topk", "by", "histogram_quantile", "label_values"}
SELECTOR = re.compile(r"\b([a-zA-Z_]\w*)(\{[^}]*\})")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def exported(text):
    """Sample name -> label -> values."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = samples.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return samples


def complaints_about(expression, samples):
    """What of a PromQL expression the exported samples do not have."""
    grouped = {label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", expression)
               for label in group.split(",")}
    known = set(TARGET_LABELS)
    bare = re.sub(r"\bby\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"\[[^\]]*\]", " ", bare)
    variable = re.match(r"label_values\((.*),\s*(\w+)\)$", bare)
    if variable:
        bare = variable.group(1)
        grouped.add(variable.group(2))
    found = False
    for name in re.findall(r"\b[a-zA-Z_]\w*", re.sub(r"\{[^}]*\}", " ", bare)):
        if name in FUNCTIONS:
            continue
        found = True
        if name in TARGET_METRICS:
            continue
        if name not in samples:
            yield f"there is no metric {name}"
            continue
        known |= set(samples[name])
    for name, selector in SELECTOR.findall(bare):
        if name not in samples:
            continue
        for label, _, value in MATCHER.findall(selector):
            if label not in samples[name] and label not in TARGET_LABELS:
                yield f"{name} has no label {label}"
            elif label in CLOSED_LABELS and not value.startswith("$"):
                for word in value.split("|"):
                    if word not in samples[name][label]:
                        yield f"{name} has no {label} {word!r}"
    for label in grouped - known:
        yield f"none of its metrics has a label {label}"
    if not found:
        yield "no metric in it"


def expressions_of(dashboard):
    """(where it stands, expression) of each in a Grafana dashboard."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"]


def check_alerts(alerts, samples):
    labels = set().union(*(set(of) for of in samples.values())) | TARGET_LABELS
    names = set()
    for group in alerts["groups"]:
        for rule in group["rules"]:
            where = f"alert {rule['alert']}"
            if rule["alert"] in names:
                yield f"{where}: there are two of the name"
            names.add(rule["alert"])
            if set(rule) - {"alert", "expr", "for", "labels", "annotations"}:
                yield f"{where}: unknown keys"
            if rule["labels"].get("severity") not in ("critical", "warning"):
                yield f"{where}: no severity"
            if not re.fullmatch(r"\d+[smh]", rule.get("for", "0s")):
                yield f"{where}: for is no time"
            for kind in ("summary", "description"):
                for label in re.findall(r"\$labels\.(\w+)", rule["annotations"][kind]):
                    if label not in labels:
                        yield f"{where}: {kind}: no label {label}"
            for complaint in complaints_about(rule["expr"], samples):
                yield f"{where}: {complaint}"


def main():
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        samples = exported(file.read())
    complaints = [] if samples else ["no metrics at all"]
    if len(sys.argv) == 4:
        with open(sys.argv[2], encoding="utf-8") as file:
            for where, expression in expressions_of(json.load(file)):
                complaints += [f"{where}: {complaint}" for complaint in complaints_about(expression, samples)]
        with open(sys.argv[3], encoding="utf-8") as file:
            complaints += check_alerts(yaml.safe_load(file), samples)
    print("\n".join(complaints))
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
