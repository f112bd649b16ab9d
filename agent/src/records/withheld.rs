//! Answers that clients did not get, although an upstream gave them.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use api::WithheldRow;
use clock::{Time, WallTime};
use dns_proxy::WithheldReason;
use names::Name;
use parking_lot::Mutex;
use policy::EndpointId;

use crate::metrics::withheld_reason;

use super::fair_lru::{FairLru, FairLruLimits};
use super::seen::Seen;

/// Some 700 bytes each: below 1 MiB. Who asks for names whose answers are bogus drives out its own.
const LIMITS: FairLruLimits = FairLruLimits {
    total: NonZeroUsize::new(1_024).unwrap(),
    per_owner: NonZeroUsize::new(64).unwrap(),
};

/// The distinct ones of late, with how often and when. Bounded, in all and for each client.
#[derive(Debug)]
pub struct WithheldAnswers(Mutex<FairLru<Option<IpAddr>, WithheldKey, WithheldGroup>>);

/// One answer that a client did not get.
#[derive(Debug, Clone, Copy)]
pub struct WithheldAnswer<'a> {
    /// Who asked; nobody where the answer cache did.
    pub client: Option<IpAddr>,
    /// The Pod that has this address.
    pub endpoint: Option<&'a EndpointId>,
    /// What was asked for.
    pub name: &'a Name,
    /// The upstream that answered.
    pub upstream: SocketAddr,
    /// Why the answer was withheld.
    pub why: WithheldReason,
    /// The same for people.
    pub text: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WithheldKey {
    name: Name,
    upstream: SocketAddr,
    why: WithheldReason,
}

#[derive(Debug)]
struct WithheldGroup {
    endpoint: Option<EndpointId>,
    /// Of the last.
    text: String,
    seen: Seen,
}

impl Default for WithheldAnswers {
    fn default() -> Self {
        Self(Mutex::new(FairLru::new(LIMITS)))
    }
}

impl WithheldAnswers {
    /// Takes one in.
    pub fn note(&self, now: Time, answer: WithheldAnswer<'_>) {
        let key = WithheldKey {
            name: answer.name.clone(),
            upstream: answer.upstream,
            why: answer.why,
        };
        let mut rows = self.0.lock();
        // An address that went over to another Pod begins another row.
        let known = rows.get_mut(&answer.client, &key);
        let known = known.filter(|row| row.endpoint.as_ref() == answer.endpoint);
        let seen = known.map_or(Seen::once(now), |row| row.seen.again(now));
        let row = WithheldGroup {
            endpoint: answer.endpoint.cloned(),
            text: answer.text.into(),
            seen,
        };
        rows.put(&answer.client, key, row);
    }

    /// All of them, the most recent first.
    pub fn rows(&self, now: Time, wall: WallTime) -> Vec<WithheldRow> {
        let rows = self.0.lock();
        let mut shown: Vec<_> = rows
            .iter()
            .map(|(client, key, row)| WithheldRow {
                kind: "answer".into(),
                seen: row.seen.shown(now, wall),
                verdict: "withheld".into(),
                pod: row.endpoint.as_ref().map(ToString::to_string),
                source: *client,
                name: key.name.to_string(),
                upstream: key.upstream,
                reason: withheld_reason(key.why).into(),
                why: row.text.clone(),
            })
            .collect();
        shown.sort_by(|a, b| (a.seen.last_seen_ms_ago, &a.name).cmp(&(b.seen.last_seen_ms_ago, &b.name)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use api::Sightings;
    use dns_proxy::{AdmissionErrorKind, InvalidAnswer};

    use super::*;

    fn pod(name: &str) -> EndpointId {
        EndpointId {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn note(answers: &WithheldAnswers, at: u64, endpoint: &EndpointId, name: &str, why: WithheldReason) {
        let answer = WithheldAnswer {
            client: Some([10, 0, 0, 2].into()),
            endpoint: Some(endpoint),
            name: &Name::parse(name).unwrap(),
            upstream: "192.0.2.53:53".parse().unwrap(),
            why,
            text: "it is wrong",
        };
        answers.note(Time::from_millis(at), answer);
    }

    const OFF_CHAIN: WithheldReason = WithheldReason::Invalid(InvalidAnswer::BrokenChain);

    #[test]
    fn answers_that_are_alike_are_one_row() {
        let answers = WithheldAnswers::default();
        note(&answers, 1_000, &pod("web"), "a.example", OFF_CHAIN);
        note(&answers, 2_000, &pod("web"), "a.example", OFF_CHAIN);
        note(
            &answers,
            3_000,
            &pod("web"),
            "a.example",
            WithheldReason::NotAdmitted(AdmissionErrorKind::Full),
        );
        let rows = answers.rows(Time::from_millis(4_000), WallTime::from_millis(1_796_040_000_000));
        let told: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.seen.count)).collect();
        assert_eq!(told, [("full", 1), ("off-chain", 2)]);
        assert_eq!(
            rows[1],
            WithheldRow {
                kind: "answer".into(),
                seen: Sightings {
                    last_seen: "2026-11-30T11:59:58.000Z".into(),
                    first_seen: "2026-11-30T11:59:57.000Z".into(),
                    last_seen_ms_ago: 2_000,
                    first_seen_ms_ago: 3_000,
                    count: 2,
                },
                verdict: "withheld".into(),
                pod: Some("shop/web".into()),
                source: Some([10, 0, 0, 2].into()),
                name: "a.example".into(),
                upstream: "192.0.2.53:53".parse().unwrap(),
                reason: "off-chain".into(),
                why: "it is wrong".into(),
            }
        );
    }

    #[test]
    fn another_pod_under_the_same_address_begins_anew() {
        let answers = WithheldAnswers::default();
        note(&answers, 1_000, &pod("web"), "a.example", OFF_CHAIN);
        note(&answers, 2_000, &pod("api"), "a.example", OFF_CHAIN);
        let rows = answers.rows(Time::from_millis(2_000), WallTime::default());
        let told: Vec<_> = rows.iter().map(|row| (row.pod.as_deref(), row.seen.count)).collect();
        assert_eq!(told, [(Some("shop/api"), 1)]);
    }

    #[test]
    fn one_client_drives_out_its_own() {
        let answers = WithheldAnswers::default();
        for number in 0..1_000 {
            note(&answers, number, &pod("web"), &format!("n{number}.example"), OFF_CHAIN);
        }
        let rows = answers.rows(Time::from_millis(1_000), WallTime::default());
        assert_eq!((rows.len(), rows[0].name.as_str()), (64, "n999.example"));
    }
}
