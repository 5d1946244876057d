#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whether a Kubernetes manifest is what it is meant to be. Prints one line per complaint.

usage: check_manifest.py MANIFEST.yaml TAPGATED.service FILES

Each object is read by the client library of Kubernetes, whose classes are made from its OpenAPI description, and written out
again: a field that is missing or unknown shows. Then the references within the manifest, and the capabilities, which are those
of the systemd unit. What the DaemonSet mounts from ConfigMaps is written below FILES, at the paths it has in the pod.
"""

import json
import pathlib
import re
import sys

import yaml
from kubernetes import client

MODELS = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("apps/v1", "DaemonSet"): "V1DaemonSet",
}


class Response:
    """What the client deserializes."""

    def __init__(self, document):
        self.data = json.dumps(document)


def differences(ours, theirs, where):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            if key not in theirs:
                yield f"{where}: unknown field {key}"
            elif key in ours:
                yield from differences(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, f"{where}[{index}]")
    elif ours != theirs:
        yield f"{where}: {ours!r} is read as {theirs!r}"


def check_schema(document):
    where = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
    model = MODELS.get((document.get("apiVersion"), document.get("kind")))
    if model is None:
        yield f"{where}: of no kind that this script knows"
        return
    api = client.ApiClient()
    try:
        read = api.deserialize(Response(document), model)
    except ValueError as error:
        yield f"{where}: {error}"
        return
    yield from differences(document, api.sanitize_for_serialization(read), where)


def capabilities_of(unit):
    found = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    return {word.removeprefix("CAP_") for word in found.group(1).split()}


def check_pod(spec, config_maps, unit, files):
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounted = set()
    (container,) = spec["containers"]
    security = container["securityContext"]
    if security["capabilities"]["drop"] != ["ALL"] or set(security["capabilities"]["add"]) != capabilities_of(unit):
        yield "the capabilities are not those of the unit"
    for mount in container["volumeMounts"]:
        mounted.add(mount["name"])
        volume = volumes.get(mount["name"])
        if volume is None:
            yield f"there is no volume {mount['name']}"
        elif "configMap" in volume:
            data = config_maps.get(volume["configMap"]["name"])
            if data is None:
                yield f"there is no ConfigMap {volume['configMap']['name']}"
                continue
            if not mount.get("readOnly") or "subPath" in mount:
                yield f"volume {mount['name']} is writable, or never changes"
            for name, text in data.items():
                path = pathlib.Path(files, mount["mountPath"].lstrip("/"), name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for name in volumes.keys() - mounted:
        yield f"volume {name} is mounted nowhere"


def main():
    manifest, unit, files = sys.argv[1:]
    with open(manifest, encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    with open(unit, encoding="utf-8") as file:
        unit = file.read()
    complaints = [complaint for document in documents for complaint in check_schema(document)]
    if not complaints:
        by_kind = {}
        for document in documents:
            by_kind.setdefault(document["kind"], []).append(document)
        (namespace,) = by_kind["Namespace"]
        for document in by_kind["ConfigMap"] + by_kind["DaemonSet"]:
            if document["metadata"].get("namespace") != namespace["metadata"]["name"]:
                complaints.append(f"{document['metadata']['name']} is in another namespace")
        (daemon_set,) = by_kind["DaemonSet"]
        template = daemon_set["spec"]["template"]
        if daemon_set["spec"]["selector"]["matchLabels"].items() - template["metadata"]["labels"].items():
            complaints.append("the selector does not match the pods")
        config_maps = {document["metadata"]["name"]: document["data"] for document in by_kind["ConfigMap"]}
        complaints += check_pod(template["spec"], config_maps, unit, files)
    print("\n".join(complaints), end="\n" if complaints else "")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
