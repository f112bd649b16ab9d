//! What is looked at twice before it counts as gone.
//!
//! Nobody takes policies away by the heap, or the end of a file, as often as a volume is not
//! mounted yet, a directory is replaced while it is filled, or a file is written slowly. All of
//! these look like objects that were deleted, and would open whom they closed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use policy::{Diagnostic, Severity};

use crate::object::ObjectKey;
use crate::report::{ReadReport, ReportState};

use super::super::reading::ParsedFile;
use super::{Catalogue, FileContent};

/// How long a doubtful loss must stay as it is until it is believed. Longer than a tool pauses
/// between two writes.
pub const CONFIRMATION: Duration = Duration::from_secs(2);
/// So many policies are a heap, if they are more than half of all.
const HEAP: usize = 3;

/// What was seen of a file that is kept as it was.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingLoss {
    /// What it holds now; `None`: it is not there.
    seen: Option<FileContent>,
    since: Instant,
}

/// A look at the files.
#[derive(Debug, Clone, Copy)]
pub struct ScanContext {
    /// When.
    pub at: Instant,
    /// Whether the directory is the one in which files were seen last, and not another one in its
    /// place.
    pub is_same: bool,
}

/// What a look comes to.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    pub(super) pending_losses: BTreeMap<PathBuf, PendingLoss>,
    /// What is to be said of it.
    pub(super) reports: Vec<ReadReport>,
    /// When to look again.
    pub(super) again: Option<Instant>,
}

/// Puts the files whose loss is doubtful back into `contents` as it was.
pub(super) fn hold_back_losses(
    catalogue: &Catalogue,
    contents: &mut BTreeMap<PathBuf, FileContent>,
    context: ScanContext,
) -> HeldBack {
    let mut held_back = HeldBack::default();
    // Another directory without files stands where the objects were: a volume that is not mounted,
    // a checkout under way.
    let is_replaced = contents.is_empty() && !context.is_same;
    let suspects = shortened(catalogue, contents)
        .into_iter()
        .map(|path| (path, LossKind::EndsEarly))
        .chain(
            vanished(catalogue, contents)
                .into_iter()
                .map(|path| (path, LossKind::Vanished)),
        );
    let suspects: Vec<(PathBuf, LossKind)> = suspects.collect();
    for (path, why) in suspects {
        let seen = contents.get(&path).cloned();
        let known = catalogue.pending_losses.get(&path).filter(|loss| loss.seen == seen);
        let since = known.map_or(context.at, |loss| loss.since);
        if context.at.duration_since(since) >= CONFIRMATION && !is_replaced {
            continue;
        }
        let Some((before, _)) = catalogue.files.get(&path) else {
            continue;
        };
        contents.insert(path.clone(), before.clone());
        if !is_replaced {
            let end = since + CONFIRMATION;
            held_back.again = Some(held_back.again.map_or(end, |again| again.min(end)));
        }
        held_back.reports.push(why.report(&path, is_replaced));
        held_back.pending_losses.insert(path, PendingLoss { seen, since });
    }
    held_back
}

#[derive(Debug, Clone, Copy)]
enum LossKind {
    EndsEarly,
    Vanished,
}

impl LossKind {
    fn report(self, path: &Path, is_replaced: bool) -> ReadReport {
        let seconds = CONFIRMATION.as_secs();
        let (code, severity, reason) = match self {
            LossKind::EndsEarly => (
                "ends-early",
                Severity::Warning,
                format!(
                    "the file ends where it went on before, as if it was being written; what it held stays in force for {seconds} s"
                ),
            ),
            LossKind::Vanished if is_replaced => (
                "vanished",
                Severity::Error,
                "an empty directory stands in the place of the one that held this file, and its objects stay in force"
                    .to_owned(),
            ),
            LossKind::Vanished => (
                "vanished",
                Severity::Warning,
                format!(
                    "the file is gone, with most or all of the policies; its objects stay in force for {seconds} s"
                ),
            ),
        };
        let suggestion = is_replaced.then(|| {
            "mount or fill the directory; to remove every object, put a file there that holds nothing but a comment"
                .to_owned()
        });
        let finding = Diagnostic {
            severity,
            code,
            path: String::new(),
            position: None,
            reason,
            suggestion,
        };
        ReadReport::new(Some(path), String::new(), ReportState::KeptLastGood, vec![finding])
    }
}

/// The files that are there, and end before something that they held.
fn shortened(catalogue: &Catalogue, contents: &BTreeMap<PathBuf, FileContent>) -> Vec<PathBuf> {
    let is_shortened = |(path, content): &(&PathBuf, &FileContent)| {
        let (Some((Ok(before), held)), Ok(now)) = (catalogue.files.get(*path), content) else {
            return false;
        };
        // What is empty, or cannot be read as a whole, keeps everything anyway.
        if before == now || now.is_empty() || !policies(held).any(|_| true) {
            return false;
        }
        if let Some(rest) = before.strip_prefix(now.as_str()) {
            return !rest.trim().is_empty();
        }
        let reading = catalogue.read(path, content);
        let keys = |reading: &ParsedFile| -> Vec<Option<ObjectKey>> {
            reading.objects.iter().map(|object| object.key.clone()).collect()
        };
        let (held, left) = (keys(held), keys(&reading));
        reading.faults.is_empty() && !left.is_empty() && left.len() < held.len() && held.starts_with(&left)
    };
    contents
        .iter()
        .filter(is_shortened)
        .map(|(path, _)| path.clone())
        .collect()
}

/// The files that are gone, where most or all of the policies went with them.
fn vanished(catalogue: &Catalogue, contents: &BTreeMap<PathBuf, FileContent>) -> Vec<PathBuf> {
    let gone = catalogue.files.iter().filter(|(path, _)| !contents.contains_key(*path));
    let gone: Vec<(&PathBuf, &ParsedFile)> = gone.map(|(path, (_, reading))| (path, reading)).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    // What is defined elsewhere was moved.
    let readings = contents.iter().map(|(path, content)| match catalogue.files.get(path) {
        Some((before, reading)) if before == content => reading.clone(),
        _ => catalogue.read(path, content),
    });
    let readings: Vec<ParsedFile> = readings.collect();
    let is_elsewhere = |key: &ObjectKey| readings.iter().flat_map(policies).any(|other| other == key);
    let lost = gone.iter().flat_map(|(_, reading)| policies(reading));
    let lost = lost.filter(|key| !is_elsewhere(key)).count();
    let is_policy = |key: &&ObjectKey| matches!(key, ObjectKey::Policy(_));
    let all = catalogue.in_force.keys().filter(is_policy).count();
    let is_heap = lost >= HEAP && lost * 2 > all;
    match lost > 0 && (contents.is_empty() || is_heap) {
        true => gone.into_iter().map(|(path, _)| path.clone()).collect(),
        false => Vec::new(),
    }
}

fn policies(reading: &ParsedFile) -> impl Iterator<Item = &ObjectKey> {
    let keys = reading.objects.iter().filter_map(|object| object.key.as_ref());
    keys.filter(|key| matches!(key, ObjectKey::Policy(_)))
}
