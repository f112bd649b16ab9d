//! The manifests say what this binary says.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agent::inspect::{Figures, SourceFigures};
use agent::metrics::Metrics;
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
fn alerts_and_the_dashboard_speak_of_metrics_that_there_are() {
    let figures = Figures {
        source: Some(SourceFigures::default()),
        ..Figures::default()
    };
    let text = Metrics::new().render(&figures);
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
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = fs::read_to_string(manifests().join("components/monitoring").join(file)).unwrap();
        let used = metrics(&text);
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<&String> = used.difference(&exposed).collect();
        assert_eq!(unknown, [] as [&String; 0], "{file}");
    }
}

/// Every word that begins as our metrics do.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("namegate_"))
        .map(str::to_owned)
        .collect()
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}
