//! The ledger's snapshot in `--state-dir`.
//!
//! The kernel keeps the learned *addresses* by itself; the snapshot keeps their *names*, which a
//! policy edit after a restart is matched against, and which `namegate names` shows.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fqdn_cache::{Ledger, LedgerSnapshot};
use parking_lot::Mutex;
use state_dir::{Durability, LEDGER_FILE, StateDir, replace_with};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::handles::AgentHandles;

/// Reads the snapshot into an empty ledger. Without one, or with one that cannot be used, the
/// ledger stays empty: names are then learned anew, and what the kernel holds goes on.
pub fn restore(directory: &Path, ledger: &mut Ledger) {
    let path = directory.join(LEDGER_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn!(path = %path.display(), %error, "the ledger's snapshot cannot be read"),
    };
    match ledger.restore(clock::now(), &clock::boot_id(), file) {
        Ok(leases) => info!(leases, "learned addresses restored"),
        Err(error) => info!(path = %path.display(), %error, "starting with an empty ledger"),
    }
}

/// How often ended leases are dropped, at most.
const EVERY: Duration = Duration::from_millis(500);

/// How often it is looked whether there is anything to drop or to write, and the snapshot is
/// written, at most. Where few lookups come, each snapshot costs as much as dozens of them.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps the ledger tidy, and its snapshot on disk no older than a few seconds.
pub async fn keep(handles: AgentHandles) {
    let began = Instant::now();
    tokio::join!(drop_ended(began, &handles.ledger), keep_saved(began, &handles));
}

/// Sleeps for about so long. What sleeps for [`LOOK`] wakes at the same moments, since each wake-up
/// of an idle node costs more than what is done then.
async fn pause_for(began: Instant, pause: Duration) {
    let step = if pause < LOOK { EVERY } else { LOOK };
    let steps = (began.elapsed() + pause).as_millis() / step.as_millis();
    sleep_until(began + step * u32::try_from(steps).unwrap_or(u32::MAX)).await;
}

/// Drops ended leases. Waits for no disk: what a slow one would leave behind meanwhile is memory,
/// and dropping it at once would hold up lookups.
async fn drop_ended(began: Instant, ledger: &Mutex<Ledger>) {
    let mut pause = EVERY;
    loop {
        pause_for(began, pause).await;
        let now = clock::now();
        let next = {
            let mut ledger = ledger.lock();
            ledger.expire(now);
            ledger.next_deadline()
        };
        pause = next.map_or(LOOK, |next| next.since(now)).clamp(EVERY, LOOK);
    }
}

async fn keep_saved(began: Instant, handles: &AgentHandles) {
    // Writing takes a share of the time that no table of any size can exceed.
    const SHARE: u32 = 50;
    let Some(directory) = &handles.settings.state_dir else {
        return;
    };
    // What was saved, and the file that it made: another agent may have put its own in that place.
    let mut saved = None;
    let mut pause = EVERY;
    loop {
        pause_for(began, pause).await;
        let lessons = handles.gate.answers_learned();
        pause = LOOK;
        if saved == Some((lessons, ledger_file(directory))) {
            continue;
        }
        let (place, ledger) = (directory.clone(), Arc::clone(&handles.ledger));
        let writing = tokio::task::spawn_blocking(move || {
            let began = clock::now();
            save(&place, &ledger).map(|()| clock::now().since(began))
        });
        match writing.await {
            Ok(Ok(took)) => {
                saved = Some((lessons, ledger_file(directory)));
                pause = LOOK.max(took * SHARE);
            }
            Ok(Err(error)) => {
                warn!(%error, "the ledger's snapshot cannot be written; a restart will not know the names behind learned addresses");
                pause = Duration::from_secs(30);
            }
            Err(_) => return,
        }
    }
}

/// Which file the snapshot is now.
fn ledger_file(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory.join(LEDGER_FILE)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Writes a snapshot of the ledger, which lookups go on using meanwhile.
pub fn save(directory: &StateDir, ledger: &Mutex<Ledger>) -> io::Result<()> {
    let mut snapshot = LedgerSnapshot::new(&clock::boot_id());
    // Boot ends the leases, so a snapshot need not survive a power cut.
    replace_with(directory, LEDGER_FILE, Durability::ProcessCrash, |file| {
        loop {
            let ledger = ledger.lock();
            let part = snapshot.next_part(&ledger, clock::now());
            drop(ledger);
            match part {
                Some(part) => file.write_all(part)?,
                None => return Ok(()),
            }
        }
    })
}
