//! The distinct records of late.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use clock::Time;
use enforcer::records::RecordedPacket;
use names::Name;
use policy::EndpointId;

use super::Attribution;
use super::fair_lru::{FairLru, FairLruLimits};
use super::seen::Seen;

/// Some 400 bytes each: below 2 MiB. A workload that scans ports drives out its own.
const LIMITS: FairLruLimits = FairLruLimits {
    total: NonZeroUsize::new(4_096).unwrap(),
    per_owner: NonZeroUsize::new(256).unwrap(),
};

/// How old an attribution may be: a policy that was renamed leaves its program as it is.
const ATTRIBUTION_AGE: Duration = Duration::from_secs(1);

/// Distinct records with how often and when they came. Pure; bounded, in all and for each source
/// address.
#[derive(Debug)]
pub struct RecentPackets {
    rows: FairLru<IpAddr, (RecordedPacket, Option<Name>), PacketGroup>,
}

/// Records that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketGroup {
    /// The Pod that has the address whose policies decided; `None` when none has it (any more).
    pub endpoint: Option<EndpointId>,
    /// The policy and rule that decided; `None` where they are not known.
    pub attribution: Option<Attribution>,
    seen: Seen,
    attributed: Time,
}

impl PacketGroup {
    /// How often and when.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }
}

impl Default for RecentPackets {
    fn default() -> Self {
        Self {
            rows: FairLru::new(LIMITS),
        }
    }
}

impl RecentPackets {
    /// Takes one record in. `attribute` is asked for a new row, and again about once a second while
    /// it recurs. Returns what decided.
    pub fn note(
        &mut self,
        now: Time,
        record: RecordedPacket,
        endpoint: Option<&EndpointId>,
        name: Option<Name>,
        attribute: impl FnOnce(&RecordedPacket, Option<&Name>) -> Option<Attribution>,
    ) -> Option<Attribution> {
        let key = (record, name);
        match self.rows.get_mut(&record.source, &key) {
            // An address that went over to another Pod begins another row.
            Some(row) if row.endpoint.as_ref() == endpoint => {
                row.seen = row.seen.again(now);
                if now.since(row.attributed) >= ATTRIBUTION_AGE {
                    row.attribution = attribute(&record, key.1.as_ref());
                    row.attributed = now;
                }
                row.attribution.clone()
            }
            _ => {
                let attribution = attribute(&record, key.1.as_ref());
                let row = PacketGroup {
                    endpoint: endpoint.cloned(),
                    attribution: attribution.clone(),
                    seen: Seen::once(now),
                    attributed: now,
                };
                self.rows.put(&record.source, key, row);
                attribution
            }
        }
    }

    /// All rows, the most recent first.
    pub fn rows(&self) -> Vec<(&RecordedPacket, Option<&Name>, &PacketGroup)> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|(_, (record, name), row)| (record, name.as_ref(), row))
            .collect();
        rows.sort_by(|a, b| {
            let latest_first = b.2.seen.last().cmp(&a.2.seen.last());
            latest_first.then_with(|| (a.0, a.1).cmp(&(b.0, b.1)))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use enforcer::records::{PacketDetail, RecordedVerdict};
    use policy::Direction;

    use super::*;

    fn record(source: &str, port: u16) -> RecordedPacket {
        RecordedPacket {
            direction: Direction::Egress,
            verdict: RecordedVerdict::Refused,
            source: source.parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: 6,
            detail: PacketDetail::Port(port),
        }
    }

    fn pod(name: &str) -> EndpointId {
        EndpointId {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn attribution(policy: &str) -> Option<Attribution> {
        Some(Attribution {
            policy: policy.into(),
            rule: None,
        })
    }

    #[test]
    fn like_records_are_one_row_and_the_most_recent_stands_first() {
        let mut recent = RecentPackets::default();
        let name = Name::parse("a.example").unwrap();
        for (millis, port) in [(1, 443), (2, 80), (3, 443)] {
            recent.note(at(millis), record("10.0.0.2", port), Some(&pod("web")), None, |_, _| {
                None
            });
        }
        // The same packet, once its name is known.
        recent.note(
            at(4),
            record("10.0.0.2", 443),
            Some(&pod("web")),
            Some(name.clone()),
            |_, _| None,
        );
        let rows: Vec<_> = recent
            .rows()
            .into_iter()
            .map(|(record, name, row)| (record.detail, name, row.seen.count, row.seen.first(), row.seen.last()))
            .collect();
        assert_eq!(
            rows,
            [
                (PacketDetail::Port(443), Some(&name), 1, at(4), at(4)),
                (PacketDetail::Port(443), None, 2, at(1), at(3)),
                (PacketDetail::Port(80), None, 1, at(2), at(2)),
            ]
        );
    }

    #[test]
    fn an_attribution_is_asked_for_once_and_renewed_when_it_is_old() {
        let mut recent = RecentPackets::default();
        let mut note = |millis, policy: &str| {
            let mut asked = false;
            recent.note(at(millis), record("10.0.0.2", 443), Some(&pod("web")), None, |_, _| {
                asked = true;
                attribution(policy)
            });
            let row = recent.rows()[0].2;
            (
                asked,
                row.attribution.as_ref().map(|it| it.policy.clone()),
                row.seen.count,
            )
        };
        assert_eq!(note(0, "shop/old"), (true, Some("shop/old".into()), 1));
        assert_eq!(note(999, "shop/new"), (false, Some("shop/old".into()), 2));
        assert_eq!(note(1_000, "shop/new"), (true, Some("shop/new".into()), 3));
    }

    #[test]
    fn an_address_that_goes_over_to_another_pod_begins_anew() {
        let mut recent = RecentPackets::default();
        for (millis, name) in [(1, "web"), (2, "web"), (3, "api")] {
            recent.note(at(millis), record("10.0.0.2", 443), Some(&pod(name)), None, |_, _| None);
        }
        let rows = recent.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].2.endpoint.as_ref(), rows[0].2.seen.count),
            (Some(&pod("api")), 1)
        );
    }

    #[test]
    fn a_scan_of_ports_drives_out_only_the_scanners_own_rows() {
        let mut recent = RecentPackets::default();
        recent.note(at(1), record("10.0.0.3", 443), None, None, |_, _| None);
        for port in 0..5_000 {
            recent.note(at(2), record("10.0.0.2", port), None, None, |_, _| None);
        }
        let rows = recent.rows();
        assert_eq!(rows.len(), 257);
        assert_eq!(rows[256].0.source, "10.0.0.3".parse::<IpAddr>().unwrap());
        assert!(rows.iter().any(|row| row.0.detail == PacketDetail::Port(4_999)));
    }
}
