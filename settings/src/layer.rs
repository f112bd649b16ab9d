//! What one source says (the command line, the config file), over what the next one says.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::options::AgentOptions;
use super::rejected::RejectedOption;

/// The options that one source names, with their values as they are written there.
///
/// Layers hold text, so that what is a default in one is known from what was said, and that one
/// parser reads flags and file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionLayer(BTreeMap<String, Vec<OsString>>);

impl OptionLayer {
    /// This layer, and of `below` what this one leaves open. Lists are replaced, not joined. Of
    /// options that exclude each other, one of them here stands for the choice.
    pub fn over(mut self, below: Self) -> Self {
        let command = command();
        let chosen: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let excluded: Vec<String> = command
            .get_arguments()
            .filter(|arg| arg.get_long().is_some_and(|long| chosen.contains(&long)))
            .flat_map(|arg| command.get_arg_conflicts_with(arg))
            .filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect();
        for (option, values) in below.0 {
            if !excluded.contains(&option) {
                self.0.entry(option).or_insert(values);
            }
        }
        self
    }

    /// The options: what this layer says, and defaults.
    pub fn options(&self) -> Result<AgentOptions, RejectedOption> {
        self.parse().map_err(|error| {
            RejectedOption::of(&error).unwrap_or_else(|| RejectedOption::Unreadable(error.to_string()))
        })
    }

    pub(super) fn parse(&self) -> Result<AgentOptions, clap::Error> {
        let arguments = self.0.iter().flat_map(|(option, values)| {
            values.iter().map(move |value| {
                let mut argument = OsString::from(format!("--{option}="));
                argument.push(value);
                argument
            })
        });
        AgentOptions::from_arg_matches(&command().try_get_matches_from(arguments)?)
    }
}

impl FromIterator<(String, Vec<OsString>)> for OptionLayer {
    fn from_iter<I: IntoIterator<Item = (String, Vec<OsString>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Args for OptionLayer {
    fn augment_args(command: Command) -> Command {
        AgentOptions::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        AgentOptions::augment_args_for_update(command)
    }
}

impl FromArgMatches for OptionLayer {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let command = command();
        let said = command.get_arguments().filter_map(|arg| {
            let id = arg.get_id().as_str();
            let values = matches.get_raw(id)?.map(ToOwned::to_owned).collect();
            matches!(
                matches.value_source(id),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
            .then(|| Some((arg.get_long()?.to_owned(), values)))
            .flatten()
        });
        Ok(said.collect())
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?.over(std::mem::take(self));
        Ok(())
    }
}

/// The options of which nobody said anything.
impl Default for AgentOptions {
    fn default() -> Self {
        OptionLayer::default()
            .parse()
            .expect("the defaults lie within their bounds, which a test checks")
    }
}

/// The options alone, as a command without a name. It reads no environment: what stands there is
/// part of the command line's layer, and means nothing to `namegate exec`.
fn command() -> Command {
    let command = Command::new("options").no_binary_name(true).disable_help_flag(true);
    AgentOptions::augment_args(command).mut_args(|option| option.env(Resettable::Reset))
}

#[cfg(test)]
mod tests {
    use clap::value_parser;

    use super::*;

    fn layer(line: &[&str]) -> OptionLayer {
        OptionLayer::from_arg_matches(&command().try_get_matches_from(line).unwrap()).unwrap()
    }

    #[test]
    fn what_is_said_above_wins_and_lists_are_replaced() {
        let above = layer(&["--table", "mine", "--upstream=192.0.2.1", "--take-over"]);
        let below = layer(&[
            "--table=theirs",
            "--node=n",
            "--upstream=192.0.2.2",
            "--upstream=192.0.2.3",
        ]);
        let both = above.over(below).options().unwrap();
        assert_eq!(both.kernel.table, "mine");
        assert_eq!(both.objects.node.as_deref(), Some("n"));
        assert_eq!(both.resolvers.upstream, ["192.0.2.1".parse().unwrap()]);
        assert!(both.process.take_over);
    }

    #[test]
    fn the_environment_is_said_as_on_the_command_line_and_is_no_default() {
        let with = AgentOptions::augment_args(Command::new("agent").no_binary_name(true))
            // The environment of a test is shared: a variable that is always there stands for ours.
            .mut_arg("table", |option| {
                option.env("CARGO_PKG_NAME").value_parser(value_parser!(String))
            });
        let said = OptionLayer::from_arg_matches(&with.try_get_matches_from([""; 0]).unwrap()).unwrap();
        let table = said.0.get("table").cloned().unwrap_or_default();
        assert_eq!(table, [env!("CARGO_PKG_NAME")]);
        for option in command().get_arguments() {
            assert_eq!(option.get_env(), None, "{option}");
        }
        let offered: Vec<_> = AgentOptions::augment_args(Command::new("agent"))
            .get_arguments()
            .filter_map(|option| option.get_env().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(
            offered,
            [
                "NAMEGATE_NODE",
                "NAMEGATE_TABLE",
                "NAMEGATE_STATE_DIR",
                "NAMEGATE_RUN_DIR"
            ]
        );
    }

    #[test]
    fn a_default_above_does_not_hide_what_is_said_below() {
        let both = layer(&[])
            .over(layer(&["--grace=1m", "--take-over=true"]))
            .options()
            .unwrap();
        assert_eq!(both.leases.grace.as_secs(), 60);
        assert!(both.process.take_over);
        let default_said = layer(&["--grace=30s"]).over(layer(&["--grace=1m"])).options().unwrap();
        assert_eq!(default_said.leases.grace.as_secs(), 30);
    }

    #[test]
    fn one_of_two_options_that_exclude_each_other_stands_for_the_choice() {
        let (objects, kubeconfig) = (layer(&["--objects=o"]), layer(&["--kubeconfig=k"]));
        let chosen = |layer: OptionLayer| {
            let options = layer.options().unwrap().objects;
            (options.objects.is_some(), options.kubeconfig.is_some())
        };
        assert_eq!(chosen(objects.clone().over(kubeconfig.clone())), (true, false));
        assert_eq!(chosen(kubeconfig.over(objects)), (false, true));
    }
}
