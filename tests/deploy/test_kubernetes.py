"""The shipped Kubernetes manifests: no fields but those of the API, and names that fit the service and each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from research.cli.arguments import parsed
from research.deploy.monitoring import Monitor

MANIFESTS = Path(__file__).parents[2] / "docs" / "deploy" / "kubernetes.yaml"
TEXT, NUMBER, YES = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def of(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": required.split()}


def many(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


# What the API of Kubernetes 1.31 and KEDA 2.15 has of the fields that are used here.
PORT = {"type": ["string", "integer"]}
META = of("name", name=TEXT, labels=TEXTS, annotations=TEXTS)
PROBE = of("httpGet", httpGet=of("path port", path=TEXT, port=PORT), periodSeconds=NUMBER, failureThreshold=NUMBER)
CONTAINER = of(
    "name image", name=TEXT, image=TEXT, command=many(TEXT), env=many(of("name", name=TEXT, value=TEXT)),
    ports=many(of("containerPort", name=TEXT, containerPort=NUMBER)),
    startupProbe=PROBE, readinessProbe=PROBE, livenessProbe=PROBE,
    lifecycle=of(preStop=of(exec=of("command", command=many(TEXT)))), resources=of(requests=TEXTS, limits=TEXTS),
    securityContext=of(
        allowPrivilegeEscalation=YES, readOnlyRootFilesystem=YES, capabilities=of(drop=many(TEXT), add=many(TEXT))
    ),
    volumeMounts=many(of("name mountPath", name=TEXT, mountPath=TEXT, readOnly=YES)),
)  # fmt: skip
VOLUME = of(
    "name", name=TEXT, emptyDir=of(), secret=of("secretName", secretName=TEXT),
    persistentVolumeClaim=of("claimName", claimName=TEXT, readOnly=YES),
)  # fmt: skip
POD = of(
    "containers", containers=many(CONTAINER), volumes=many(VOLUME), terminationGracePeriodSeconds=NUMBER,
    securityContext=of(runAsNonRoot=YES, runAsUser=NUMBER, fsGroup=NUMBER),
)  # fmt: skip
SELECTOR = of("matchLabels", matchLabels=TEXTS)
SPECS = {
    ("apps/v1", "Deployment"): of(
        "selector template", selector=SELECTOR, replicas=NUMBER,
        template=of("metadata spec", metadata=of(labels=TEXTS, annotations=TEXTS), spec=POD),
        strategy=of(type=TEXT, rollingUpdate=of(maxUnavailable=PORT, maxSurge=PORT)),
    ),
    ("v1", "Service"): of(
        "ports", selector=TEXTS, ports=many(of("port", name=TEXT, port=NUMBER, targetPort=PORT))
    ),
    ("policy/v1", "PodDisruptionBudget"): of(minAvailable=PORT, selector=SELECTOR),
    ("keda.sh/v1alpha1", "ScaledObject"): of(
        "scaleTargetRef triggers", scaleTargetRef=of("name", name=TEXT), minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER, cooldownPeriod=NUMBER,
        triggers=many(of("type metadata", type={"enum": ["prometheus"]}, metadata=of(
            "serverAddress query threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT
        ))),
    ),
}  # fmt: skip


def manifests() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFESTS.read_text())}


def test_each_manifest_fits_its_schema() -> None:
    for kind, manifest in manifests().items():
        spec = SPECS[manifest["apiVersion"], kind]
        whole = of("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=META, spec=spec)
        jsonschema.validate(manifest, whole)


def test_names_fit_the_service_and_each_other() -> None:
    found = manifests()
    deployment = found["Deployment"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    options = parsed(container["command"][1:])
    assert options.port == container["ports"][0]["containerPort"] and options.host == "0.0.0.0"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in deployment["template"]["spec"]["volumes"]}
    assert options.keys.startswith(mounts["keys"]) and options.runs[0].split("=")[1].startswith(mounts["models"])
    scaled = found["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    query, threshold = (scaled["triggers"][0]["metadata"][name] for name in ("query", "threshold"))
    (metric,) = re.findall(r"research_\w+", query)
    assert metric in {family.name for family in Monitor().registry.collect()}
    assert f'run="{options.runs[0].split("=")[0]}"' in query and int(threshold) < options.max_waiting_tokens
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert wait + 30 < deployment["template"]["spec"]["terminationGracePeriodSeconds"]  # uvicorn answers for 30 s
