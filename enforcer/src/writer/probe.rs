//! Finds out how this kernel renews elements.

use std::time::Duration;

use crate::layout::IpFamily;
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::dump;
use crate::netlink::objects::{Datatype, SetSpec, TableCommand};
use crate::netlink::set_key::SetKey;
use crate::netlink::socket::{CommitError, NetfilterSocket};

use super::error::InstallError;
use super::install_failure::InstallFailure;
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
///
/// The socket should be one that stays open: the kernel lets nobody close one of nf_tables before
/// what was deleted is freed, which takes tens of milliseconds.
pub(super) fn renewal(socket: &mut NetfilterSocket, table: &str) -> Result<Renewal, InstallError> {
    let table = table_name(table);
    transact(socket, &table, &scratch())?;
    let refreshed = is_refreshed(socket, &table);
    // Added first: another agent that starts at the same moment may have removed it.
    let removed = transact(socket, &table, &[TableCommand::AddTable, TableCommand::DeleteTable]);
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

fn is_refreshed(socket: &mut NetfilterSocket, table: &str) -> Result<bool, CommitError> {
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

fn transact(socket: &mut NetfilterSocket, table: &str, commands: &[TableCommand]) -> Result<(), InstallError> {
    let outcome = socket.transact(table, commands)?;
    outcome.map_err(|errors| InstallFailure::of_command_errors(commands, &errors).into())
}

/// Makes the scratch table with an empty set, even if one was left behind.
fn scratch() -> [TableCommand; 4] {
    let set = SetSpec {
        key: vec![Datatype::Address(IpFamily::V4)],
        maps_to: None,
        ranges: false,
        timeouts: true,
        swept: None,
        size: None,
        meter: None,
    };
    [
        TableCommand::AddTable,
        TableCommand::DeleteTable,
        TableCommand::AddTable,
        TableCommand::AddSet(SET.into(), set),
    ]
}
