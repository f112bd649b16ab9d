//! Why a step of an installation was not done.

use crate::netlink::batch::OperationError;
use crate::netlink::objects::TableCommand;
use crate::netlink::transaction::CommandError;

use super::error::InstallError;

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum InstallFailure {
    /// An object that should exist does not.
    Missing(String),
    /// The kernel, or nft, refused.
    Refused(String),
    /// It is not known whether the kernel has carried it out.
    Unknown(std::io::Error),
    /// An error that is none of the kernel's; it is passed on.
    Other(InstallError),
}

impl InstallFailure {
    pub(super) fn of_command_errors(commands: &[TableCommand], errors: &[CommandError]) -> Self {
        let Some(error) = errors.first() else {
            return InstallFailure::Refused(String::new());
        };
        let command = error.command.and_then(|at| commands.get(at));
        let text = match command {
            Some(command) => format!("{} (errno {}): {}", error.text, error.errno, brief(command)),
            None => format!("{} (errno {})", error.text, error.errno),
        };
        Self::of_errno(error.errno, text)
    }

    pub(super) fn of_operation_errors(errors: &[OperationError]) -> Self {
        let errno = errors.first().map_or(0, |error| error.errno);
        let text = errors.first().map_or_else(String::new, |error| error.text.clone());
        Self::of_errno(errno, text)
    }

    fn of_errno(errno: i32, text: String) -> Self {
        match errno {
            libc::ENOENT => InstallFailure::Missing(text),
            libc::EPERM => InstallFailure::Other(InstallError::NoPermission),
            libc::ENFILE => Self::full(&text),
            _ => InstallFailure::Refused(text),
        }
    }

    /// A set cannot hold what it should.
    pub(super) fn full(text: &str) -> Self {
        InstallFailure::Refused(format!("a set is full; raise --set-capacity ({text})"))
    }
}

impl From<std::io::Error> for InstallFailure {
    fn from(error: std::io::Error) -> Self {
        InstallFailure::Unknown(error)
    }
}

impl From<InstallError> for InstallFailure {
    fn from(error: InstallError) -> Self {
        InstallFailure::Other(error)
    }
}

impl From<InstallFailure> for InstallError {
    fn from(failure: InstallFailure) -> Self {
        match failure {
            InstallFailure::Missing(text) | InstallFailure::Refused(text) => InstallError::Refused(text),
            InstallFailure::Unknown(error) => error.into(),
            InstallFailure::Other(error) => error,
        }
    }
}

/// A short description of a command: a rule or a thousand elements are too long.
fn brief(command: &TableCommand) -> String {
    match command {
        TableCommand::AddTable | TableCommand::DeleteTable => "the table".to_owned(),
        TableCommand::AddChain(name)
        | TableCommand::AddBaseChain(name, _)
        | TableCommand::EmptyChain(name)
        | TableCommand::DeleteChain(name) => {
            format!("chain {name}")
        }
        TableCommand::AddSet(name, _)
        | TableCommand::LimitSet(name, _)
        | TableCommand::EmptySet(name)
        | TableCommand::DeleteSet(name) => {
            format!("set {name}")
        }
        TableCommand::AddElements(set, _) | TableCommand::DeleteElements(set, _) => format!("elements of {set}"),
        TableCommand::AddRule(chain, rule) => format!("a rule of {chain}: {rule:?}").chars().take(200).collect(),
    }
}
