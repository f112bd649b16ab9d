//! Lookups that policies refused.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use api::RefusedLookupRow;
use clock::{Time, WallTime};
use names::Name;
use parking_lot::Mutex;
use policy::EndpointId;

use super::fair_lru::{FairLru, FairLruLimits};
use super::seen::Seen;

/// Some 500 bytes each: below 2 MiB. Who asks for names without end drives out its own.
const LIMITS: FairLruLimits = FairLruLimits {
    total: NonZeroUsize::new(4_096).unwrap(),
    per_owner: NonZeroUsize::new(256).unwrap(),
};

/// The distinct ones of late, with how often and when. Bounded, in all and for each client.
#[derive(Debug)]
pub struct RefusedLookups(Mutex<FairLru<IpAddr, Name, RefusedLookupGroup>>);

/// Refused lookups of one client for one name.
#[derive(Debug)]
struct RefusedLookupGroup {
    endpoint: Option<EndpointId>,
    /// Of the last.
    reason: String,
    policies: Vec<String>,
    seen: Seen,
}

impl Default for RefusedLookups {
    fn default() -> Self {
        Self(Mutex::new(FairLru::new(LIMITS)))
    }
}

impl RefusedLookups {
    /// Takes one in.
    pub fn note(
        &self,
        now: Time,
        client: IpAddr,
        endpoint: Option<&EndpointId>,
        name: &Name,
        (reason, policies): (&str, &[String]),
    ) {
        let mut rows = self.0.lock();
        // An address that went over to another Pod begins another row.
        let known = rows.get_mut(&client, name);
        let known = known.filter(|row| row.endpoint.as_ref() == endpoint);
        let seen = known.map_or(Seen::once(now), |row| row.seen.again(now));
        let row = RefusedLookupGroup {
            endpoint: endpoint.cloned(),
            reason: reason.into(),
            policies: policies.to_vec(),
            seen,
        };
        rows.put(&client, name.clone(), row);
    }

    /// All of them, the most recent first.
    pub fn rows(&self, now: Time, wall: WallTime) -> Vec<RefusedLookupRow> {
        let rows = self.0.lock();
        let mut shown: Vec<_> = rows
            .iter()
            .map(|(client, name, row)| RefusedLookupRow {
                kind: "lookup".into(),
                seen: row.seen.shown(now, wall),
                verdict: "refused".into(),
                pod: row.endpoint.as_ref().map(ToString::to_string),
                source: *client,
                name: name.to_string(),
                reason: row.reason.clone(),
                policies: row.policies.clone(),
            })
            .collect();
        shown.sort_by(|a, b| (a.seen.last_seen_ms_ago, &a.name).cmp(&(b.seen.last_seen_ms_ago, &b.name)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use api::Sightings;

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 2];

    fn note(lookups: &RefusedLookups, at: u64, pod: &str, name: &str) {
        let pod: EndpointId = pod.parse().unwrap();
        let name = Name::parse(name).unwrap();
        let why = ("namegate: no", &["shop/web".to_owned()][..]);
        lookups.note(Time::from_millis(at), CLIENT.into(), Some(&pod), &name, why);
    }

    #[test]
    fn lookups_that_are_alike_are_one_row_with_absolute_times() {
        let lookups = RefusedLookups::default();
        note(&lookups, 1_000, "shop/web", "a.example");
        note(&lookups, 2_500, "shop/web", "a.example");
        note(&lookups, 3_000, "shop/web", "b.example");
        // The wall clock shows 2026-11-30T12:00:00Z.
        let wall = WallTime::from_millis(1_796_040_000_000);
        let rows = lookups.rows(Time::from_millis(4_000), wall);
        let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.seen.count)).collect();
        assert_eq!(told, [("b.example", 1), ("a.example", 2)]);
        assert_eq!(
            rows[1],
            RefusedLookupRow {
                kind: "lookup".into(),
                seen: Sightings {
                    last_seen: "2026-11-30T11:59:58.500Z".into(),
                    first_seen: "2026-11-30T11:59:57.000Z".into(),
                    last_seen_ms_ago: 1_500,
                    first_seen_ms_ago: 3_000,
                    count: 2,
                },
                verdict: "refused".into(),
                pod: Some("shop/web".into()),
                source: CLIENT.into(),
                name: "a.example".into(),
                reason: "namegate: no".into(),
                policies: vec!["shop/web".into()],
            }
        );
    }

    #[test]
    fn another_pod_under_the_same_address_begins_anew() {
        let lookups = RefusedLookups::default();
        note(&lookups, 1_000, "shop/web", "a.example");
        note(&lookups, 2_000, "shop/api", "a.example");
        let rows = lookups.rows(Time::from_millis(2_000), WallTime::default());
        let told: Vec<_> = rows.iter().map(|row| (row.pod.as_deref(), row.seen.count)).collect();
        assert_eq!(told, [(Some("shop/api"), 1)]);
    }
}
