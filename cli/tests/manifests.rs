//! The manifests say what this binary says.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::inspect::{Figures, OtherClusterGauges};
use agent::metrics::Metrics;
use clap::Args as _;
use cluster::kubernetes::health::SourceFigures;
use enforcer::records::RecordedVerdict;
use policy::Direction;
use promql_parser::parser::Expr;
use serde_json::Value;

#[test]
fn the_definitions_are_those_that_namegate_crds_makes() {
    let directory = manifests().join("crds");
    let definitions = policy::crd::definitions();
    for (file, definition) in &definitions {
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        let written: Option<Value> = serde_saphyr::from_str(&text).unwrap_or_default();
        assert!(
            written.as_ref() == Some(definition),
            "{file} is stale: run `namegate crds --directory manifests/crds`"
        );
    }
    for group in fs::read_dir(&directory).unwrap() {
        let group = group.unwrap().path();
        if group.is_file() {
            // What puts the groups together.
            continue;
        }
        let kustomization = fs::read_to_string(group.join("kustomization.yaml")).unwrap();
        for file in fs::read_dir(&group).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            if file == "kustomization.yaml" {
                continue;
            }
            let path = format!("{}/{file}", group.file_name().unwrap().to_str().unwrap());
            assert!(
                definitions.iter().any(|(known, _)| *known == path),
                "{path} is nobody's"
            );
            assert!(
                kustomization.contains(&format!("- {file}\n")),
                "{path} is not in the kustomization"
            );
            assert!(
                manifests().join("chart/crds").join(&file).exists(),
                "{path} is not linked into the chart"
            );
        }
    }
}

#[test]
fn the_systemd_unit_starts_what_this_binary_knows_and_lets_the_supervisor_do_its_work() {
    let unit = fs::read_to_string(manifests().join("systemd/namegate.service")).unwrap();
    let value = |key: &str| {
        unit.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap()
    };
    let mut words = value("ExecStart").split(' ');
    assert_eq!(words.next(), Some("/usr/bin/namegate"));
    // Help comes only when the words before it are known.
    let output = Command::new(env!("CARGO_BIN_EXE_namegate"))
        .args(words.clone())
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(words.any(|word| word == "--supervise"));
    // Otherwise the agent is told to end twice, or not started again when the kernel kills it.
    assert_eq!((value("KillMode"), value("OOMPolicy")), ("mixed", "continue"));
}

#[test]
fn the_systemd_unit_is_sound_and_confines_the_agent() {
    let unit = manifests().join("systemd/namegate.service");
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    let Ok(security) = analyze(&["security", "--offline=yes", "--threshold=30", "--no-pager"]) else {
        // Without systemd there is nobody to say so.
        return;
    };
    let text = String::from_utf8_lossy(&security.stdout);
    assert!(security.status.success(), "an exposure of 3.0 at the most: {text}");
}

#[test]
fn the_schema_of_the_chart_knows_the_values_that_there_are_and_the_options_of_the_agent() {
    let read = |file: &str| fs::read_to_string(manifests().join("chart").join(file)).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    described(&schema, &values, "");

    let options = settings::AgentOptions::augment_args(clap::Command::new("agent"));
    let mut names: Vec<&str> = options.get_arguments().filter_map(clap::Arg::get_long).collect();
    names.push("clusters");
    names.sort_unstable();
    let known = &schema["properties"]["config"]["propertyNames"]["enum"];
    assert_eq!(
        serde_json::to_string(known).unwrap(),
        serde_json::to_string(&names).unwrap(),
        "propertyNames of `config` are the options, in their order"
    );
}

/// Every value has a schema of its type, and every schema but `global` a value. Objects without
/// properties are Kubernetes' own, or free.
fn described(schema: &Value, value: &Value, path: &str) {
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::Bool(_) => "boolean",
        _ => "string",
    };
    let says = schema["type"] == kind || schema["enum"].as_array().is_some_and(|words| words.contains(value));
    assert!(says, "{path}: a value of type {kind}, and the schema {schema}");
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{path}: a misspelt value is refused"
    );
    let value = value.as_object().unwrap();
    for name in value.keys() {
        assert!(properties.contains_key(name), "{path}.{name} is not in the schema");
    }
    for (name, schema) in properties.iter().filter(|(name, _)| *name != "global") {
        let value = value
            .get(name)
            .unwrap_or_else(|| panic!("{path}.{name} is not in values.yaml"));
        described(schema, value, &format!("{path}.{name}"));
    }
}

#[test]
fn alerts_and_the_dashboard_are_promql_and_speak_of_metrics_that_there_are() {
    let text = exposition();
    let exposed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffixes: &[&str] = if kind == "histogram" {
                &["_bucket", "_count", "_sum"]
            } else {
                &[""]
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect();
    for (file, expressions) in [("alerts.yaml", alerts()), ("dashboard.json", panels())] {
        assert!(expressions.len() > 5, "{file}: {expressions:?}");
        for expression in expressions {
            let parsed = promql_parser::parser::parse(&expression);
            let parsed = parsed.unwrap_or_else(|error| panic!("{file}: {expression}: {error}"));
            let used = series(&parsed);
            assert!(!used.is_empty(), "{file}: {expression}");
            // The target's own: Prometheus makes it.
            assert!(
                !expression.contains("job=\"") && !expression.contains("job!="),
                "{file}: elsewhere the job is called otherwise: {expression}"
            );
            let unknown = used.iter().find(|name| *name != "up" && !exposed.contains(*name));
            assert_eq!(unknown, None, "{file}: {expression}");
        }
    }
}

/// What an agent exposes that has everything.
fn exposition() -> String {
    let figures = Figures {
        source: Some(SourceFigures::default()),
        other_clusters: vec![OtherClusterGauges {
            name: "west".into(),
            pods: 0,
            contested: 0,
            source: Some(SourceFigures::default()),
        }],
        ..Figures::default()
    };
    let metrics = Metrics::new();
    // Namespaces have no series before something is counted.
    metrics.denied_lookups("shop", 1);
    for verdict in [RecordedVerdict::Audited, RecordedVerdict::Refused] {
        metrics.record(Direction::Egress, verdict, "shop");
    }
    metrics.inspection_refused("policy");
    metrics.render(&figures)
}

#[test]
fn the_reference_lists_every_metric_with_its_labels() {
    let text = exposition();
    let mut table = "| metric | type | labels | what |\n|---|---|---|---|\n".to_owned();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        let kind = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        let labels: BTreeSet<&str> = series
            .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
            .flat_map(|(labels, _)| labels.split(','))
            .filter_map(|label| Some(label.split_once('=')?.0).filter(|label| *label != "le"))
            .collect();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let written = fs::read_to_string(&page).unwrap();
    let (before, _) = written.split_once("| metric |").unwrap();
    let now = format!("{before}{table}");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&page, &now).unwrap();
    }
    assert!(
        written == now,
        "docs/metrics.md is stale; INSTA_UPDATE=always writes its table:\n{table}"
    );
}

/// The expressions of the alerts.
fn alerts() -> Vec<String> {
    let text = fs::read_to_string(manifests().join("components/monitoring/alerts.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    expressions(&rules)
}

/// The expressions of the dashboard, with values for Grafana's variables.
fn panels() -> Vec<String> {
    let text = fs::read_to_string(manifests().join("components/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let expressions = expressions(&dashboard["panels"]);
    let filled_in = |expression: &String| expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
    expressions.iter().map(filled_in).collect()
}

/// Every field `expr`, at any depth.
fn expressions(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let children: Vec<&Value> = match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().collect()
        }
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    found.extend(children.into_iter().flat_map(expressions));
    found
}

/// The names of the series that an expression selects.
fn series(expression: &Expr) -> BTreeSet<String> {
    let several = |parts: Vec<&Expr>| parts.into_iter().flat_map(series).collect();
    match expression {
        Expr::VectorSelector(selector) => selector.name.iter().cloned().collect(),
        Expr::MatrixSelector(selector) => selector.vs.name.iter().cloned().collect(),
        Expr::Aggregate(aggregate) => series(&aggregate.expr),
        Expr::Unary(unary) => series(&unary.expr),
        Expr::Paren(inner) => series(&inner.expr),
        Expr::Subquery(inner) => series(&inner.expr),
        Expr::Binary(binary) => several(vec![&binary.lhs, &binary.rhs]),
        Expr::Call(call) => several(call.args.args.iter().map(|argument| &**argument).collect()),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => BTreeSet::new(),
    }
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}
