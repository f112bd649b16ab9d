//! What is looked at twice before it counts as gone.
//!
//! Nobody takes policies away by the heap, or the end of a file, as often as a volume is not
//! mounted yet, a directory is replaced while it is filled, or a file is written slowly. All of
//! these look like objects that were deleted, and would open whom they closed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use policy::{Diagnostic, Severity};

use crate::object::{ObjectKey, ObjectName};
use crate::report::{ReadReport, ReportState};

use super::super::reading::ParsedFile;
use super::held_file::{ContentId, HeldDocument, HeldFile};
use super::{Catalogue, FileContent, FileLook};

/// How long a doubtful loss must stay as it is until it is believed. Longer than a tool pauses
/// between two writes.
pub const CONFIRMATION: Duration = Duration::from_secs(2);
/// So many policies are a heap, if they are more than half of all.
const HEAP: usize = 3;

/// What was seen of a file that is kept as it was.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingLoss {
    /// What it holds now; `None`: it is not there.
    seen: Option<ContentId>,
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

/// Lets the files whose loss is doubtful stand in `looks` as they were.
pub(super) fn hold_back_losses(
    catalogue: &Catalogue,
    looks: &mut BTreeMap<PathBuf, FileLook>,
    context: ScanContext,
) -> HeldBack {
    let mut held_back = HeldBack::default();
    // Another directory without files stands where the objects were: a volume that is not mounted,
    // a checkout under way.
    let is_replaced = looks.is_empty() && !context.is_same;
    let suspects = shortened(catalogue, looks)
        .into_iter()
        .map(|path| (path, LossKind::EndsEarly))
        .chain(
            vanished(catalogue, looks)
                .into_iter()
                .map(|path| (path, LossKind::Vanished)),
        );
    let suspects: Vec<(PathBuf, LossKind)> = suspects.collect();
    for (path, why) in suspects {
        let seen = looks.get(&path).and_then(|look| match look {
            FileLook::Read { content, .. } => Some(ContentId::of(content)),
            FileLook::Unchanged => None,
        });
        let known = catalogue.pending_losses.get(&path).filter(|loss| loss.seen == seen);
        let since = known.map_or(context.at, |loss| loss.since);
        if context.at.duration_since(since) >= CONFIRMATION && !is_replaced {
            continue;
        }
        looks.insert(path.clone(), FileLook::Unchanged);
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
fn shortened(catalogue: &Catalogue, looks: &BTreeMap<PathBuf, FileLook>) -> Vec<PathBuf> {
    let is_shortened = |(path, look): &(&PathBuf, &FileLook)| {
        let FileLook::Read { content, .. } = look else {
            return false;
        };
        let (Some(held), Ok(now)) = (catalogue.files.get(*path), content) else {
            return false;
        };
        // Only a file that holds policies has its text kept.
        let Some(before) = &held.text else { return false };
        // What is empty, or cannot be read as a whole, keeps everything anyway.
        if before == now || now.is_empty() {
            return false;
        }
        if let Some(rest) = before.strip_prefix(now.as_str()) {
            return !rest.trim().is_empty();
        }
        let reading = catalogue.read(path, content, &mut |_, _, _| ());
        let held: Vec<Option<ObjectName<'_>>> = held.documents.iter().map(HeldDocument::name).collect();
        let left = reading.objects.iter().map(|object| object.key.as_ref());
        let left: Vec<Option<ObjectName<'_>>> = left.map(|key| key.map(ObjectKey::name)).collect();
        reading.faults.is_empty() && !left.is_empty() && left.len() < held.len() && held.starts_with(&left)
    };
    let shortened = looks.iter().filter(is_shortened);
    shortened.map(|(path, _)| path.clone()).collect()
}

/// The files that are gone, where most or all of the policies went with them.
fn vanished(catalogue: &Catalogue, looks: &BTreeMap<PathBuf, FileLook>) -> Vec<PathBuf> {
    let gone = catalogue.files.iter().filter(|(path, _)| !looks.contains_key(*path));
    let gone: Vec<(&PathBuf, &HeldFile)> = gone.collect();
    let is_policy = |(_, file): &(&PathBuf, &HeldFile)| file.text.is_some();
    if !gone.iter().any(is_policy) {
        return Vec::new();
    }
    // What is defined elsewhere was moved.
    let elsewhere = policies_of(catalogue, looks);
    let lost = gone.iter().flat_map(|(_, file)| &file.documents);
    let lost = lost.filter_map(HeldDocument::policy_name);
    let lost = lost.filter(|name| !elsewhere.contains(&name.to_key())).count();
    let is_heap = lost >= HEAP && lost * 2 > catalogue.table.policies();
    match lost > 0 && (looks.is_empty() || is_heap) {
        true => gone.into_iter().map(|(path, _)| path.clone()).collect(),
        false => Vec::new(),
    }
}

/// The policies that files define now.
fn policies_of(catalogue: &Catalogue, looks: &BTreeMap<PathBuf, FileLook>) -> BTreeSet<ObjectKey> {
    let mut policies = BTreeSet::new();
    for (path, look) in looks {
        let held = catalogue.files.get(path);
        match (held, look) {
            (_, FileLook::Read { content, .. }) if !is_held(held, content) => {
                let reading: ParsedFile = catalogue.read(path, content, &mut |_, _, _| ());
                let keys = reading.objects.into_iter().filter_map(|object| object.key);
                policies.extend(keys.filter(|key| matches!(key, ObjectKey::Policy(_))));
            }
            (Some(held), _) => {
                let names = held.documents.iter().filter_map(HeldDocument::policy_name);
                policies.extend(names.map(ObjectName::to_key));
            }
            (None, _) => {}
        }
    }
    policies
}

fn is_held(held: Option<&HeldFile>, content: &FileContent) -> bool {
    held.is_some_and(|held| held.content.as_ref() == Some(&ContentId::of(content)))
}
