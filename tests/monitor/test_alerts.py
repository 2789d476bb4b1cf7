"""The alert rules, the dashboard and what is written about them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from support import needs

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES = PROMETHEUS / "alerts.yml"
RUNBOOK = ROOT / "docs" / "how-to" / "alerts.md"
METRICS = ROOT / "docs" / "metrics.md"

needs_promtool = needs("prometheus", "promtool", "--version")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)  # noqa: S607  wherever it is


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "hyperwatch.json").read_text())
    return document


def queries() -> list[str]:
    """What the dashboard asks, with everything chosen."""
    asked = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return [re.sub(r"\$(instance|stream)\b", ".*", query) for query in asked]


@needs_promtool
def test_each_alert_fires_when_it_should_and_at_no_other_time() -> None:
    done = promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration() -> None:
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = promtool("check", "rules", tmp_path / "rules.yml")

    assert rules
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_expected_by_a_test_and_expected_to_be_silent_by_another() -> None:
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case.get("alert_rule_test", ())]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == set(alerts())
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == set(alerts())


def test_each_alert_says_how_grave_it_is_and_where_to_read_on() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/how-to/alerts.md#{name.lower()}"


def test_each_alert_has_its_section_which_tells_the_same_severity_and_no_section_is_of_an_alert_that_is_gone() -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(\w+)\.", RUNBOOK.read_text(), re.MULTILINE))
    assert sections == {name: rule["labels"]["severity"] for name, rule in alerts().items()}


@pytest.mark.skipif(not METRICS.exists(), reason="docs/metrics.md is not there yet")
def test_each_metric_that_is_asked_for_exists() -> None:
    asked = [*queries(), *(rule["expr"] for rule in alerts().values())]
    asked += [path.read_text() for path in (ROOT / "docs" / "how-to").glob("*.md")]
    names = {name for text in asked for name in re.findall(r"\bhyperwatch_[a-z_]+", text)}
    known = set(re.findall(r"`(hyperwatch_\w+)", METRICS.read_text()))
    others = {"hyperwatch_state", "hyperwatch_behind"}  # a volume, and a word of /readyz
    assert {re.sub(r"_bucket$", "", name) for name in names} - known - others == set()


def test_what_is_provisioned_fits_together() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "hyperwatch.yaml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    binds = [each for each in services["grafana"]["volumes"] if each["type"] == "bind"]
    mounts = {each["target"]: ROOT / each["source"] for each in binds}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    used = {part["datasource"]["uid"] for part in dashboard()["panels"] if "datasource" in part}

    assert used == {source["uid"]}
    assert mounts[provider["options"]["path"]] == GRAFANA / "dashboards"
    assert (mounts[str(Path(home).parent)] / Path(home).name).is_file()
    assert mounts["/etc/grafana/provisioning"] == GRAFANA / "provisioning"


def test_no_panel_covers_another() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & seen, panel["title"]
        assert place["x"] + place["w"] <= 24
        seen |= cells
