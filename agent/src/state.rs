//! What must outlive the process, in `--state-dir`: the ledger's snapshot, and how files there are replaced
//! (`objects::last_good` keeps the other one).
//!
//! The kernel keeps the learned *addresses* by itself; the snapshot keeps their *names*, which a policy edit after a
//! restart is matched against, and which `namegate names` shows.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fqdn_cache::Ledger;
use fqdn_cache::snapshot::Snapshot;
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
            save(&directory, &ledger).map(|()| clock::now().since(began))
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

/// Writes a snapshot of the ledger, which lookups go on using meanwhile.
pub fn save(directory: &Path, ledger: &Mutex<Ledger>) -> io::Result<()> {
    let mut snapshot = Snapshot::new(&clock::boot_id());
    // Boot ends the leases, so a snapshot need not survive a power cut.
    replace_with(directory, LEDGER_FILE, Until::Boot, |file| {
        loop {
            let ledger = lock(ledger);
            let part = snapshot.next_part(&ledger, clock::now());
            drop(ledger);
            match part {
                Some(part) => file.write_all(part)?,
                None => return Ok(()),
            }
        }
    })
}

/// What a file must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A crash of the process.
    Boot,
    /// A power cut too.
    Replaced,
}

/// Writes a file beside the old one and puts it in its place, so that a crash leaves one or the other. Only the owner may read it.
pub fn replace(directory: &Path, name: &str, content: &[u8], until: Until) -> io::Result<()> {
    replace_with(directory, name, until, |file| file.write_all(content))
}

fn replace_with(
    directory: &Path,
    name: &str,
    until: Until,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let fresh = directory.join(format!("{name}.new"));
    // What a crash left there may have other permissions, which an open file would keep.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    write(&mut file)?;
    if until == Until::Replaced {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(fresh, directory.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone() {
        let dir = TempDir::new().unwrap();
        let state = dir.path().join("made/state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("a.new"), "left by a crash, and readable by all").unwrap();
        for content in ["one", "two"] {
            replace(&state, "a", content.as_bytes(), Until::Replaced).unwrap();
            assert_eq!(fs::read_to_string(state.join("a")).unwrap(), content);
            let mode = fs::metadata(state.join("a")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }
}
