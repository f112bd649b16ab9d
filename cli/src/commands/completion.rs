//! `namegate completion`: what completes the command line in a shell.

use clap_complete::Shell;

use crate::VerbOutcome;

/// Prints what completes `namegate` in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  namegate completion bash > /etc/bash_completion.d/namegate
  namegate completion fish > ~/.config/fish/completions/namegate.fish
  source <(namegate completion zsh)")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    crate::print(&script(args.shell))?;
    Ok(VerbOutcome::Positive)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command(), "namegate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn verbs_and_flags_are_completed_in_each_shell() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["observe", "fail-mode", "drops"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
