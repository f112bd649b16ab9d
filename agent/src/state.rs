//! What must outlive the process: the ledger's snapshot in `--state-dir`.
//!
//! The kernel keeps the learned *addresses* by itself; the snapshot keeps their *names*, which a policy edit after a
//! restart is matched against, and which `namegate names` shows.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fqdn_cache::Ledger;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::clock;
use crate::config::LEDGER_FILE;
use crate::gate::lock;
use crate::parts::Parts;

/// Reads the snapshot into an empty ledger. Without one, or with one that cannot be used, the ledger stays empty:
/// names are then learned anew, and what the kernel holds goes on.
pub fn restore(directory: &Path, ledger: &mut Ledger) {
    let path = directory.join(LEDGER_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn!(path = %path.display(), %error, "the ledger's snapshot cannot be read"),
    };
    match ledger.restore(clock::now(), &clock::boot_id(), &bytes) {
        Ok(leases) => info!(leases, "learned addresses restored"),
        Err(error) => info!(path = %path.display(), %error, "starting with an empty ledger"),
    }
}

/// Keeps the ledger tidy, and its snapshot on disk no older than a few seconds.
pub async fn keep(parts: Parts) {
    const EVERY: Duration = Duration::from_millis(500);
    // Writing takes a share of the time that no table of any size can exceed.
    const SHARE: u32 = 50;
    let mut saved = None;
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        lock(&parts.ledger).expire(clock::now());
        let lessons = parts.gate.lessons();
        let Some(directory) = parts.settings.state_dir.clone().filter(|_| saved != Some(lessons)) else {
            continue;
        };
        let ledger = Arc::clone(&parts.ledger);
        let writing = tokio::task::spawn_blocking(move || {
            let began = clock::now();
            let snapshot = lock(&ledger).to_bytes(clock::now(), &clock::boot_id());
            save(&directory, &snapshot).map(|()| clock::now().since(began))
        });
        match writing.await {
            Ok(Ok(took)) => {
                saved = Some(lessons);
                pause = EVERY.max(took * SHARE);
            }
            Ok(Err(error)) => {
                warn!(%error, "the ledger's snapshot cannot be written; a restart will not know the names behind learned addresses");
                pause = Duration::from_secs(30);
            }
            Err(_) => return,
        }
    }
}

/// Writes a snapshot beside the old one and puts it in its place, so that a crash leaves one or the other.
pub fn save(directory: &Path, snapshot: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let fresh: PathBuf = directory.join(format!("{LEDGER_FILE}.new"));
    let mut file = fs::File::create(&fresh)?;
    file.write_all(snapshot)?;
    // Not synced: boot ends the leases, so a snapshot need not survive a power cut.
    drop(file);
    fs::rename(fresh, directory.join(LEDGER_FILE))
}
