"""Checks renderings of the chart. Standard output says what was checked; a failure ends with 1 and says what is wrong."""

import copy
import json
import pathlib
import sys

import kubernetes_validate
import yaml

# Kinds that Kubernetes does not define: their operator's definitions do.
FOREIGN = {"PodMonitor", "PrometheusRule"}


def objects(path):
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def describe(thing):
    return f"{thing['kind']} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def validate(releases, paths):
    """Every object against the schemas of every release; fields that a schema does not know are errors."""
    count = 0
    for path in paths:
        found = objects(path)
        names = [describe(thing) for thing in found]
        if len(set(names)) != len(names):
            sys.exit(f"{path}: an object comes twice: {sorted(names)}")
        for thing in found:
            if thing["kind"] in FOREIGN:
                continue
            for release in releases:
                try:
                    kubernetes_validate.validate(thing, release, strict=True)
                except kubernetes_validate.ValidationError as error:
                    where = ".".join(str(part) for part in error.path)
                    sys.exit(f"{path}: {describe(thing)} on Kubernetes {release}: {where}: {error.message}")
                count += 1
        agree(path, found)
    if not count:
        sys.exit("nothing was validated")
    print(f"{count} times an object is what a schema says ({len(paths)} renderings, Kubernetes {releases[0]} to {releases[-1]})")


def agree(path, found):
    """What no schema tells: volumes that are mounted are there, and ports are claimed once."""
    for thing in found:
        if thing["kind"] != "DaemonSet":
            continue
        pod = thing["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for each in pod["containers"] for mount in each.get("volumeMounts", [])}
        if volumes != mounted:
            sys.exit(f"{path}: volumes {volumes} and mounts {mounted}")
        ports = [port["containerPort"] for each in pod["containers"] for port in each.get("ports", [])]
        if len(set(ports)) != len(ports):
            sys.exit(f"{path}: a port comes twice on the node: {ports}")
        writable = {
            mount["mountPath"] for each in pod["containers"] for mount in each.get("volumeMounts", []) if not mount.get("readOnly")
        }
        if not writable <= {"/var/lib/sekisho", "/run/sekisho", "/tmp", "/sys/fs/bpf"}:
            sys.exit(f"{path}: may write to {writable}")
        labels = thing["spec"]["template"]["metadata"]["labels"]
        if not thing["spec"]["selector"]["matchLabels"].items() <= labels.items():
            sys.exit(f"{path}: the pods are not selected")


def passed_on(value, rendered, paths):
    """What was rendered holds the content of the files, all of it and nothing else."""
    found = objects(rendered)
    if value == "prometheusRule.enabled":
        groups = [group for path in paths for group in yaml.safe_load(open(path))["groups"]]
        said = [group for thing in found if thing["kind"] == "PrometheusRule" for group in thing["spec"]["groups"]]
        same(groups, said, value)
    elif value == "dashboards.enabled":
        dashboards = {pathlib.Path(path).name: json.load(open(path)) for path in paths}
        said = {}
        for thing in found:
            if thing["kind"] == "ConfigMap" and "dashboard" in thing["metadata"]["name"]:
                said |= {name: json.loads(text) for name, text in thing["data"].items()}
        same(dashboards, said, value)
    else:
        pod = next(thing for thing in found if thing["kind"] == "DaemonSet")["spec"]["template"]
        checks = json.loads(pod["metadata"]["annotations"]["ad.datadoghq.com/sekisho.checks"])
        (path,) = [path for path in paths if path.endswith("conf.yaml")]
        (instance,) = yaml.safe_load(open(path))["instances"]
        (said,) = checks["openmetrics"]["instances"]
        if not said["openmetrics_endpoint"].endswith("/metrics"):
            sys.exit(f"{value}: asks {said['openmetrics_endpoint']}")
        for each in (instance, said):
            each.pop("openmetrics_endpoint")
        same(instance, said, value)
    print(f"{value}: {len(paths)} files are passed on as they are")


def same(expected, found, what):
    if expected != found:
        sys.exit(f"{what}: {json.dumps(found, sort_keys=True)}\nis not {json.dumps(expected, sort_keys=True)}")


def normal(thing):
    """An object without what tells Helm and kustomize apart."""
    thing = copy.deepcopy(thing)
    metadata = [thing["metadata"]]
    if thing["kind"] == "DaemonSet":
        metadata.append(thing["spec"]["template"]["metadata"])
        for volume in thing["spec"]["template"]["spec"]["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = volume["configMap"]["name"].split("-")[0]
    for each in metadata:
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            each.get("labels", {}).pop(label, None)
        each.get("annotations", {}).pop("checksum/config", None)
    if thing["kind"] == "ConfigMap":
        # kustomize gives it a name of its content.
        thing["metadata"]["name"] = thing["metadata"]["name"].split("-")[0]
        thing["data"] = {name: yaml.safe_load(text) for name, text in thing["data"].items()}
    return thing


def compare(rendered, kustomized):
    """kustomize's objects are Helm's, and the namespace."""
    theirs = {describe(each): each for each in map(normal, objects(rendered))}
    ours = {describe(each): each for each in map(normal, objects(kustomized)) if each["kind"] != "Namespace"}
    if theirs.keys() != ours.keys():
        sys.exit(f"kustomize makes {sorted(ours)}, and Helm {sorted(theirs)}")
    for name, thing in theirs.items():
        same(thing, ours[name], name)
    print(f"kustomize makes the same {len(ours)} objects as Helm")


match sys.argv[1:]:
    case ["objects", releases, *paths]:
        validate(releases.split(","), paths)
    case ["files", value, rendered, *paths]:
        passed_on(value, rendered, paths)
    case ["same", rendered, kustomized]:
        compare(rendered, kustomized)
    case arguments:
        sys.exit(f"unknown arguments: {arguments}")
