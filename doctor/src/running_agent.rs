//! Asks the agent that runs on a node for what the checks need of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api::{AgentStatus, ApiClient, ClientError, EndpointRow, ExplainQuestion, ExplainVerdict};
use policy::encrypted_dns::{HTTPS_PORT, PROVIDERS, TLS_PORT};
use settings::InterceptionMode;

use crate::{DOCUMENTATION_ADDRESSES, OpenProviders, RunningAgent};

/// The agent that answers, if there is one: a node is looked at before an agent is there, too.
pub(crate) async fn find(client: &ApiClient) -> Result<Option<RunningAgent>, ClientError> {
    let status = match client.status().await {
        Ok(status) => status,
        Err(ClientError::NoAgent { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let may_reach = async |endpoint: &str, to: &str, port| may_reach(client, endpoint, to, port).await;
    let (open_to_encrypted_dns, open_providers) = bypasses(&status.endpoints, may_reach).await?;
    Ok(Some(RunningAgent {
        interception: mode(&status.interception),
        resolvers: resolvers(&status),
        open_to_encrypted_dns,
        open_providers,
        other_clusters: status.other_clusters,
    }))
}

/// Which ways to resolve names unobserved a program leaves open.
#[derive(Debug, Clone, Default)]
struct Bypasses {
    /// DNS over TLS to anybody.
    anybody: bool,
    providers: Vec<&'static str>,
}

/// Asks for one endpoint of each program; the others of a program are told the same. Endpoints that
/// are not closed for egress may reach anything on purpose.
async fn bypasses<E>(
    endpoints: &[EndpointRow],
    may_reach: impl AsyncFn(&str, &str, u16) -> Result<bool, E>,
) -> Result<(Vec<String>, Vec<OpenProviders>), E> {
    let mut told: BTreeMap<_, Bypasses> = BTreeMap::new();
    let (mut open, mut open_providers) = (Vec::new(), Vec::new());
    for row in endpoints.iter().filter(|row| row.egress == "default-deny") {
        let bypasses = match told.get(&row.program) {
            Some(known) => known.clone(),
            None => {
                let found = bypasses_of(&row.endpoint, &may_reach).await?;
                told.insert(row.program.clone(), found.clone());
                found
            }
        };
        if bypasses.anybody {
            open.push(row.endpoint.clone());
        }
        if !bypasses.providers.is_empty() {
            open_providers.push(OpenProviders {
                endpoint: row.endpoint.clone(),
                providers: bypasses.providers,
            });
        }
    }
    Ok((open, open_providers))
}

async fn bypasses_of<E>(
    endpoint: &str,
    may_reach: &impl AsyncFn(&str, &str, u16) -> Result<bool, E>,
) -> Result<Bypasses, E> {
    let mut found = Bypasses::default();
    for address in DOCUMENTATION_ADDRESSES {
        found.anybody |= may_reach(endpoint, &address.to_string(), TLS_PORT).await?;
    }
    for provider in PROVIDERS {
        // The usual name, and of each family the usual address.
        let addresses = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is_of_family| {
            let mut addresses = provider.addresses.iter();
            addresses.find(|address| is_of_family(address)).map(ToString::to_string)
        });
        let host = provider.hosts.first().map(ToString::to_string);
        for server in addresses.into_iter().chain([host]).flatten() {
            let is_open = may_reach(endpoint, &server, HTTPS_PORT).await?
                // Of anybody's port it is said already.
                || (!found.anybody && may_reach(endpoint, &server, TLS_PORT).await?);
            if is_open {
                found.providers.push(provider.name);
                break;
            }
        }
    }
    Ok(found)
}

async fn may_reach(client: &ApiClient, endpoint: &str, to: &str, port: u16) -> Result<bool, ClientError> {
    let question = ExplainQuestion {
        from: endpoint.to_owned(),
        to: to.to_owned(),
        port: Some(port),
        protocol: None,
        sni: None,
        method: None,
        path: None,
        host: None,
    };
    match client.explain(&question).await {
        Ok(answer) => Ok(answer.verdict == ExplainVerdict::Allowed),
        // A Pod that has gone meanwhile.
        Err(ClientError::CannotTell(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The mode, as `namegate status` shows it; `None` for one that this version does not know.
fn mode(text: &str) -> Option<InterceptionMode> {
    [
        ("dnat", InterceptionMode::Dnat),
        ("tproxy", InterceptionMode::Tproxy),
        ("off", InterceptionMode::Off),
    ]
    .into_iter()
    .find_map(|(word, mode)| (word == text).then_some(mode))
}

fn resolvers(status: &AgentStatus) -> Vec<SocketAddr> {
    status.resolvers.iter().filter_map(|text| resolver(text)).collect()
}

fn resolver(text: &str) -> Option<SocketAddr> {
    text.parse::<settings::DnsAddress>().ok().map(|address| address.0)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    fn row(endpoint: &str, egress: &str, program: &str) -> EndpointRow {
        EndpointRow {
            endpoint: endpoint.into(),
            addresses: Vec::new(),
            egress: egress.into(),
            ingress: "unselected".into(),
            program: Some(program.into()),
            ingress_program: None,
            policies: Vec::new(),
        }
    }

    struct Found {
        anybody: Vec<String>,
        /// Endpoints and the providers that they may reach.
        providers: Vec<(String, Vec<&'static str>)>,
        /// How many endpoints were asked for.
        asked: usize,
    }

    fn found(open: impl Fn(&str, &str, u16) -> bool) -> Found {
        let rows = [
            row("n/a", "default-deny", "1"),
            row("n/b", "default-deny", "1"),
            row("n/c", "default-deny", "2"),
            row("n/d", "allow", "3"),
            row("n/e", "unselected", "4"),
        ];
        let asked = RefCell::new(BTreeMap::<String, usize>::new());
        let may_reach = async |endpoint: &str, to: &str, port: u16| {
            *asked.borrow_mut().entry(endpoint.to_owned()).or_default() += 1;
            Ok::<bool, Infallible>(open(endpoint, to, port))
        };
        let Ok((anybody, providers)) = api::ask(bypasses(&rows, may_reach)).unwrap();
        Found {
            anybody,
            providers: providers.into_iter().map(|it| (it.endpoint, it.providers)).collect(),
            asked: asked.into_inner().len(),
        }
    }

    #[test]
    fn each_program_is_asked_for_once_and_endpoints_that_are_open_are_not() {
        let found = found(|_, _, _| false);
        assert!(found.anybody.is_empty() && found.providers.is_empty());
        assert_eq!(found.asked, 2, "n/a for the first program, n/c for the second");
    }

    #[test]
    fn dns_over_tls_to_anybody_is_told_of_every_endpoint_of_the_program_and_not_again_of_providers() {
        let found = found(|endpoint, _, port| endpoint == "n/a" && port == TLS_PORT);
        assert_eq!(found.anybody, ["n/a", "n/b"]);
        assert!(found.providers.is_empty());
    }

    #[test]
    fn a_provider_is_open_by_any_of_its_servers_at_either_port() {
        let by_name = |endpoint: &str, to: &str, port| (endpoint, to, port) == ("n/c", "dns.google", HTTPS_PORT);
        assert_eq!(found(by_name).providers, [("n/c".to_owned(), vec!["Google"])]);
        let by_address = |endpoint: &str, to: &str, port| (endpoint, to, port) == ("n/a", "8.8.8.8", TLS_PORT);
        let found = found(by_address);
        assert!(found.anybody.is_empty());
        assert_eq!(
            found.providers,
            [("n/a".to_owned(), vec!["Google"]), ("n/b".to_owned(), vec!["Google"])]
        );
    }

    #[test]
    fn resolvers_and_modes_are_read_as_status_shows_them() {
        assert_eq!(resolver("10.53.0.53:53"), Some("10.53.0.53:53".parse().unwrap()));
        assert_eq!(resolver("10.53.0.53"), Some("10.53.0.53:53".parse().unwrap()));
        assert_eq!(mode("tproxy"), Some(InterceptionMode::Tproxy));
        assert_eq!(mode("another"), None);
    }
}
