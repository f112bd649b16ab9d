//! Finds out how this kernel renews elements.

use std::time::Duration;

use nftables::batch::Batch;
use nftables::schema::{NfListObject, Set, SetFlag, SetType, SetTypeValue};
use nftables::types::NfFamily;

use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::dump;
use crate::netlink::set_key::SetKey;
use crate::netlink::socket::{CommitError, NetfilterSocket};

use super::error::InstallError;
use super::nft;
use super::renewal::Renewal;

const SET: &str = "probe";
const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);

/// The name of the scratch table that exists for a moment beside `table`.
pub(super) fn table_name(table: &str) -> String {
    format!("{table}-probe")
}

/// Adds an element twice to a scratch set and reads which timeout counts. The version number would
/// not tell, because distributions carry such changes to older kernels.
pub(super) fn renewal(table: &str) -> Result<Renewal, InstallError> {
    let table = table_name(table);
    nft::apply(&scratch(&table).to_nftables())?;
    let refreshed = is_refreshed(&table);
    // Another agent that starts at the same moment may have removed it.
    let removed = nft::delete_tables(&[&table]);
    let renewal = match refreshed {
        Ok(true) => Renewal::Refresh,
        Ok(false) => Renewal::Replace,
        Err(error) => {
            tracing::warn!(
                ?error,
                "cannot find out how elements are renewed; replacing them works everywhere"
            );
            Renewal::Replace
        }
    };
    removed.map(|()| renewal)
}

fn is_refreshed(table: &str) -> Result<bool, CommitError> {
    let mut socket = NetfilterSocket::open().map_err(CommitError::Unacknowledged)?;
    for timeout in [SHORT, LONG] {
        let add = ElementOp {
            set: SET.into(),
            key: SetKey::from_slice(&[192, 0, 2, 1]),
            action: ElementAction::Add(timeout),
        };
        socket.commit(table, &[add])?;
    }
    let elements = socket
        .dump(
            |sequence| dump::ask_elements(table, SET, sequence),
            |message, found| found.extend(dump::read_elements(message)),
        )
        .map_err(CommitError::Unacknowledged)?;
    Ok(elements.iter().any(|element| element.remaining > Some(SHORT)))
}

/// Makes the scratch table with an empty set, even if one was left behind.
fn scratch(table: &str) -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(nft::table_object(table));
    batch.delete(nft::table_object(table));
    batch.add(nft::table_object(table));
    batch.add(NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: table.to_owned().into(),
        name: SET.into(),
        handle: None,
        set_type: SetTypeValue::Single(SetType::Ipv4Addr),
        policy: None,
        flags: Some([SetFlag::Timeout].into()),
        elem: None,
        timeout: None,
        gc_interval: None,
        size: None,
        comment: None,
    })));
    batch
}
